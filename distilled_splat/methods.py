"""The entry point of the methods for nerfstudio.

Every ns-* command imports this module, also a command for another method. So a failed import is reported in one
sentence, and nerfstudio continues without our methods.
"""

from typing import Any, cast

from nerfstudio.utils.rich_utils import CONSOLE

from distilled_splat.runs.words import type_and_words

try:
    from distilled_splat.workflows.method_configs import (
        distilled_splatfacto,
        distilled_splatfacto_paper,
        splatfacto_teacher,
    )
except Exception as error:
    CONSOLE.print(
        f"distilled-splat's methods are left out, because they do not work here ({type_and_words(error)}): install a "
        "newer distilled-splat, or the package versions that this one requires.",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    # nerfstudio's registry prints that these are not a MethodSpecification, and continues
    splatfacto_teacher = distilled_splatfacto = distilled_splatfacto_paper = cast(Any, None)

__all__ = ["distilled_splatfacto", "distilled_splatfacto_paper", "splatfacto_teacher"]
