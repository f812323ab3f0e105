"""What families with state spaces (Mamba-2) share: how configs describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm_export.blocks.state_space import StateSpace, state_layout
from edgellm_export.checkpoint.config import ConfigReader

NO_LIMIT = ([0.0, float("inf")], [0.0, {"__float__": "Infinity"}], None)  # as transformers 4 and 5 write it
MAX_KERNEL, MAX_STATE = 64, 1 << 12


@dataclass(frozen=True)
class Keys:
    """What config.json calls the sizes."""

    heads: str
    head_dim: str
    groups: str
    state_size: str
    kernel: str
    expand: str
    bias: str
    conv_bias: str


MAMBA_KEYS = Keys(  # of models that have attention besides
    *(
        f"mamba_{key}"
        for key in ("n_heads", "d_head", "n_groups", "d_state", "d_conv", "expand", "proj_bias", "conv_bias")
    )
)


def read_state_space(
    config: ConfigReader, keys: Keys, hidden: int, layers: Sequence[int], *, eps: float, act: str
) -> StateSpace:
    """`layers`: those that have one."""
    limit = config.data.get("time_step_limit")
    config.require(
        limit in NO_LIMIT, f"time_step_limit is {limit!r}; edgellm builds state spaces without a limit, [0.0, Infinity]"
    )
    size, heads, groups = config.integer(keys.expand) * hidden, config.integer(keys.heads), config.integer(keys.groups)
    given = config.data.get(keys.head_dim)
    head_dim = max(1, size // heads) if given in (None, "auto") else config.integer(keys.head_dim)
    config.require(
        heads * head_dim == size,
        f"{keys.heads} {heads} heads of {head_dim} channels are not {keys.expand} times hidden_size, {size}",
    )
    config.require(heads % groups == 0, f"{keys.heads} {heads} is not a multiple of {keys.groups} {groups}")
    state = config.integer(keys.state_size, maximum=MAX_STATE)
    kernel = config.integer(keys.kernel, minimum=2, maximum=MAX_KERNEL)
    layout = state_layout(layers, kernel, heads, head_dim, state, groups)
    return StateSpace(layout, groups, eps, act, bias=config.flag(keys.bias), conv_bias=config.flag(keys.conv_bias))
