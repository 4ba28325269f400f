"""One process or several: who computes which items of a batch, and how gradients come together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """The processes of a run. Alone, everything here is the identity and nothing beyond torch is imported.

    Gradients of the adapter are summed by hand rather than by a wrapper around the model: the hooks, the switched-off
    adapter and the passes without gradients then see the same module as in a run of one process.

    Attributes:
        rank, count: number of this process, and of all.
        accelerator: `accelerate.Accelerator`, where there are several.
    """

    rank: int = 0
    count: int = 1
    accelerator: Any = None

    @classmethod
    def current(cls) -> Processes:
        """The processes that `accelerate launch` or `torchrun` started; one where neither did.

        Raises:
            ValueError: several processes were started, and accelerate is not installed or does not see them.
        """
        import os

        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        try:
            from accelerate import Accelerator
        except ImportError:
            raise ValueError(
                "several processes need accelerate, which is not installed: pip install accelerate"
            ) from None
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
        if accelerator.num_processes != int(os.environ["WORLD_SIZE"]):
            raise ValueError(
                f"{os.environ['WORLD_SIZE']} processes were started, accelerate found {accelerator.num_processes}: "
                f"each would train alone. Start them with torchrun or `accelerate launch`."
            )
        return cls(accelerator.process_index, accelerator.num_processes, accelerator)

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def mine(self, items: Sequence[Any]) -> list[Any]:
        """This process's part of a batch: every `count`-th item."""
        return list(items[self.rank :: self.count])

    def total(self, value: float | int) -> float:
        """Sum of a number over all processes."""
        if self.accelerator is None:
            return float(value)
        here = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(here, reduction="sum"))

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Put the sum over all processes into every gradient."""
        if self.accelerator is None:
            return
        for parameter in parameters:
            mine: Tensor = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.accelerator.reduce(mine, reduction="sum")

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()
