"""What the exercise notebooks import: models, tools, checks, figures.

The names that a learner needs are here, each brought from its room when it is first asked for:

>>> from exercises_utils import circuits, hooks, load_model, plotting
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Two warnings that learners cannot act on. tqdm, which comes with TransformerLens, asks for a package that nothing
# here uses; eindex indexes with a list where torch would rather see a tuple (the result is the same).
warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message="Using a non-tuple sequence", module="eindex")


def lazily(room: str, names: Mapping[str, str | Sequence[str]]) -> Callable[[str], Any]:
    """A package's `__getattr__`: a name is imported from its module when it is first asked for, the module alone.

    `names` has the package's modules and what of each the package offers, in one text or one by one. So the command
    line does not wait for torch.
    """
    module_of = {
        name: module
        for module, offered in names.items()
        for name in (offered.split() if isinstance(offered, str) else offered)
    }

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        module = import_module(f"{room}.{module_of[name]}")
        return getattr(module, name) if hasattr(module, name) else import_module(f"{module.__name__}.{name}")

    return get


if TYPE_CHECKING:
    from exercises_utils.models import DEFAULT_INSTANCE, available_instances, build_model, load_model
    from exercises_utils.tools import circuits, hooks, patching
else:
    __getattr__ = lazily(
        __name__,
        {
            "models": "DEFAULT_INSTANCE available_instances build_model load_model",
            "tools": "circuits hooks patching",
        },
    )
