"""The door through which nerfstudio finds the methods.

Every ns-* command imports this module, those that train other methods, too. So what keeps the methods from being had
is told in one sentence, and nerfstudio passes them over.
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
        f"distilled-splat's methods are left out, as it does not fit what is installed here ({type_and_words(error)}): "
        "install a newer distilled-splat, or the versions that this one asks for.",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    # nerfstudio's registry says that this is no MethodSpecification, and goes on
    splatfacto_teacher = distilled_splatfacto = distilled_splatfacto_paper = cast(Any, None)

__all__ = ["distilled_splatfacto", "distilled_splatfacto_paper", "splatfacto_teacher"]
