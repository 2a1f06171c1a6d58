"""The auxiliary losses of routers in a training step, the same however its batch is cut into parts and spread over devices.

The load-balancing loss multiplies two means over the whole batch: the experts' shares of the choices, which are counts, and their mean
probabilities. Once the counts of the whole batch are known, the loss of a part is its share of the second mean. So a step

1. runs each part under `watching`, which counts: all parts without gradients first (`count_first`) where there are several;
2. calls `settle` once, on every device at the same point: from then on the counts are those of the whole batch;
3. adds each part's share to its loss (`added`) before it goes backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from embedkit.errors import TrainingError
from embedkit.model.config import EncoderConfig
from embedkit.model.costs import encoder_flops
from embedkit.model.routing import RoutingLog, recording
from embedkit.training.engine.grad_cache import RandomState
from embedkit.training.engine.ranks import Ranks
from embedkit.training.engine.recipes import RoutingRecipe
from embedkit.training.engine.routing_tally import Tally, router_sizes
from embedkit.training.losses.routing import clear_selection, load_balance, router_z

Part = TypeVar("Part")


def check_routing(config: EncoderConfig | None, recipe: RoutingRecipe | None) -> None:
    """Refuse weights of losses that the model has not.

    Raises:
        TrainingError: the recipe sets them for a model without routers.
    """
    if recipe is not None and (config is None or config.routed is None):
        raise TrainingError(
            "routing: the recipe sets weights of routers' losses; the model has no experts and no recursion by a router. "
            "Leave them out, or train a model with model.experts or model.recursion"
        )


class StepRouting:
    """Counts and losses of one step."""

    def __init__(self, config: EncoderConfig | None, recipe: RoutingRecipe | None, ranks: Ranks) -> None:
        """`config` is None for a static model, which has no layers and so no work to count; `recipe` None: the usual weights."""
        self._config, self._ranks = config, ranks
        self._recipe = recipe or RoutingRecipe()
        self._tally = Tally(config, ranks.device)
        self._settled = False
        self._log: RoutingLog | None = None
        self._step_lengths: list[list[int]] = []
        self._dropped = torch.zeros((), dtype=torch.long, device=ranks.device)
        self._losses: dict[str, Tensor] = {}
        self.forward_passes = 1  # of each part

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what routers do in the forward pass of one part."""
        if not self._tally.active:
            yield
            return
        with recording() as log:
            yield
        if not self._settled:
            self._tally.add(log)
        if torch.is_grad_enabled():
            self._log = log
            self._note_work(log)

    def _note_work(self, log: RoutingLog) -> None:
        for step, lengths in enumerate(log.counted_lengths()):
            if step == len(self._step_lengths):
                self._step_lengths.append([])
            self._step_lengths[step] += lengths
        for each in log.counted_choices():
            if each.kept is not None:
                self._dropped += (~each.kept).sum()

    def count_first(self, run: Callable[[Part], object], parts: Sequence[Part]) -> None:
        """Run all parts without gradients, to count, where any device has several; `run` watches each.

        What is random in them is drawn again afterwards. Costs a third more work; one part on each device needs none of it.
        """
        if not self._tally.active or not self._several(len(parts)):
            return
        state = RandomState.capture()
        with torch.no_grad():
            for part in parts:
                run(part)
        state.restore()
        self.forward_passes = 2
        self.settle()

    def _several(self, count: int) -> bool:
        """Say whether any device has more than one part: all must count at the same point."""
        most = torch.tensor(count, device=self._ranks.device)
        if self._ranks.world > 1:
            dist.all_reduce(most, op=dist.ReduceOp.MAX)
        return int(most) > 1

    def settle(self) -> None:
        """Add up the counts of all devices, once."""
        if not self._settled:
            self._tally.exchange(self._ranks)
        self._settled = True

    def added(self, loss: Tensor) -> Tensor:
        """Add the last part's share of the auxiliary losses to its loss; what is reported as the loss stays that of the task."""
        share = self.share()
        return loss if share is None else loss + share

    def share(self) -> Tensor | None:
        """Return the last part's share of the weighted auxiliary losses; None where nothing is routed."""
        log, self._log = self._log, None
        if log is None:
            return None
        assert self._settled
        tally, routers = self._tally, len(router_sizes(self._config))
        total = torch.zeros((), device=self._ranks.device)
        for each in log.counted_choices():
            count = max(tally.tokens(each.router), 1.0)
            balance = load_balance(each.logits, tally.load(each.router), count=count)
            z = router_z(each.logits, count=count)
            total = total + self._recipe.balance_weight * balance + self._recipe.z_weight * z
            self._note("balance_loss", balance / routers)
            self._note("z_loss", z / routers)
        for selection in log.counted_selections():
            value = clear_selection(selection.logits, selection.selected, count=max(tally.candidates, 1.0))
            total = total + self._recipe.selection_weight * value
            self._note("selection_loss", value)
        return total

    def _note(self, name: str, value: Tensor) -> None:
        value = value.detach()
        self._losses[name] = self._losses[name] + value if name in self._losses else value

    def values(self) -> dict[str, Tensor | float]:
        """Return what to report, as this device's shares: losses without their weights, means over routers, and `Tally.measures`."""
        measures = {name: value / self._ranks.world for name, value in self._tally.measures().items()}
        return {**self._losses, **measures}

    def flops(self, lengths: Sequence[int]) -> float:
        """Count the multiplications and additions of a forward pass over this device's sequences, as they were routed."""
        if self._config is None:
            return 0.0
        dropped = int(self._dropped)
        return encoder_flops(self._config, lengths, step_lengths=self._step_lengths, dropped=dropped)
