"""A sham CUDA device: what the plugin does on a GPU can be run, and can fail, on a machine without one.

Its tensors say that they are on cuda:0 and keep their numbers in the CPU's memory (`device`). They refuse what CUDA
refuses: to be mixed with tensors of the CPU, or to be read by NumPy. What would make a real GPU's queue of work stand
still, and so cost speed, is written down with the line that did it (`ledger`). gsplat's compiled kernels are replaced
by torch code with the same arguments, the same checks and the same outputs (`gsplat_kernels`, `blending`); gsplat's own
Python runs on top of them as it is.

The sham changes torch for the whole process (`torch_cuda`). So the checks in `check_*.py` are pytest files that run in
processes of their own, with `plugin`; the files tests/test_cuda_*.py start them.

What it cannot show: faults of the real kernels, races of asynchronous work, speed, half precision, a GPU's own random
numbers, and a GPU's memory running out.
"""
