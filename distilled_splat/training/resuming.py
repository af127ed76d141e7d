"""What a resumed training needs beyond nerfstudio's checkpoint, so that it goes on as if it had never stopped.

nerfstudio saves the parameters, the optimizers and the learning rates. A training also has random numbers, an order of
photos, and what the model gathers over many steps. With these a resumed training is the same to the last bit on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch


def training_state(model: Any, datamanager: Any) -> dict[str, Any]:
    """Return the state of a training, as tensors, numbers and lists.

    Args:
        model: a `model.PortableSplatfactoModel`.
        datamanager: a `datamanager.PortableDatamanager`.
    """
    state = {
        "random": torch.get_rng_state(),
        "photos": list(datamanager.train_unseen_cameras),
        "model": model.training_state(),
    }
    if model.device.type == "cuda":
        state["random_gpu"] = torch.cuda.get_rng_state(model.device)
    if hasattr(datamanager, "random_generator"):  # only if it shuffles the photos
        version, numbers, _ = datamanager.random_generator.getstate()
        state["shuffle"] = [version, torch.tensor(numbers)]
    return state


def restore_training_state(state: dict[str, Any], model: Any, datamanager: Any) -> None:
    """Bring a training into the state that `training_state` returned."""
    torch.set_rng_state(state["random"])
    if model.device.type == "cuda" and "random_gpu" in state:
        torch.cuda.set_rng_state(state["random_gpu"], model.device)
    datamanager.train_unseen_cameras = list(state["photos"])
    if "shuffle" in state and hasattr(datamanager, "random_generator"):
        version, numbers = state["shuffle"]
        datamanager.random_generator.setstate((version, tuple(numbers.tolist()), None))
    model.restore_training_state(state["model"])
