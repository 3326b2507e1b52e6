"""OptimizerSpec: how fast parameters learn, and from which gradients."""

from plans.parts import Above, Natural, Part, Rate, Weight


class OptimizerSpec(Part):
    """AdamW (Loshchilov and Hutter 2019) with gradient clipping by global norm."""

    lr: Above = 1e-6
    betas: tuple[Rate, Rate] = (0.9, 0.999)
    eps: Above = 1e-8
    weight_decay: Weight = 0.0
    clip_grad: Above = 1.0
    warmup_steps: Natural = 0

    def lr_at(self, step: int) -> float:
        """The rate of a step (from 1): a linear rise over `warmup_steps`, then constant."""
        return self.lr * min(1.0, step / self.warmup_steps) if self.warmup_steps else self.lr


class CriticOptimizerSpec(OptimizerSpec):
    """The same for the critic, whose head starts at zero and learns faster."""

    lr: Above = 1e-5
