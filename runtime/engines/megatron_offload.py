"""AdamW with its moments in host memory, where each step is computed too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

MOMENTS = ("exp_avg", "exp_avg_sq")


class HostAdamW(torch.optim.Optimizer):
    """AdamW that keeps 8 bytes a parameter off the device.

    Parameters and gradients pass to the host one at a time, 8 bytes a parameter, and the
    parameters back, 4 bytes. The float32 copies of bf16 parameters stay on the device, where
    their gradients are clipped. On a CPU the result is that of torch's AdamW bit for bit.

    `groups` are another optimizer's. The count of steps is a tensor of each parameter's state
    or, with `grouped_steps`, an integer of the group, as fused optimizers keep it.
    """

    def __init__(self, groups: list[dict[str, Any]], *, grouped_steps: bool) -> None:
        # the parameters may be views, which torch's own way in refuses
        super().__init__([torch.zeros(0)], {})
        self.param_groups = groups
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {name: _on_host(parameter) for name in MOMENTS}
                if not grouped_steps:
                    self.state[parameter]["step"] = torch.tensor(0.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient; `closure` is not used."""
        assert closure is None, "Megatron-core computes gradients before it steps"
        for group in self.param_groups:
            group["step"] = int(group.get("step", 0)) + 1
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(group, parameter, parameter.grad)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does it, which brings every tensor to its parameter's device: then back."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in MOMENTS:
                state[name] = state[name].cpu()

    def _step_one(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        state = self.state[parameter]
        count = state.get("step", torch.tensor(group["step"] - 1.0))
        here = parameter.cpu()
        adamw(
            [here],
            [gradient.cpu()],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [count],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        parameter.copy_(here)


def _on_host(parameter: Tensor) -> Tensor:
    return torch.zeros(parameter.shape, dtype=torch.float32, pin_memory=parameter.is_cuda)
