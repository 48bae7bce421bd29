"""What a rollout did, for the metrics."""

from collections.abc import Mapping
import dataclasses

from mem1_jax.types import ActionKind, Stop, TurnRecord


@dataclasses.dataclass
class RolloutStats:
  """Counts of episodes, turns and tokens, and seconds."""

  num_turns: int = 0
  num_generated: int = 0
  num_malformed: int = 0
  num_cut: int = 0  # information tokens that did not fit a context
  num_overflow: int = 0  # episodes ended because they outgrew the cache or a row
  num_faults: int = 0  # episodes ended because their environment failed
  num_outages: int = 0  # searches that could not be done
  num_length_stops: int = 0  # turns that ran out of their token budget
  num_repetition_stops: int = 0  # turns that only repeated themselves
  num_read: int = 0  # tokens of questions and contexts whose keys and values were computed
  num_reused: int = 0  # tokens of questions that were copied from the store instead
  num_idle: int = 0  # tokens that slots without a turn would have decoded
  prefill_seconds: float = 0.0
  decode_seconds: float = 0.0
  environment_seconds: float = 0.0  # waited for environments with nothing else to do
  seconds: float = 0.0
  counts: Mapping[str, int] = dataclasses.field(default_factory=dict)  # of environments, by name

  def __add__(self, other: 'RolloutStats') -> 'RolloutStats':
    counts = {name: self.counts.get(name, 0) + other.counts.get(name, 0)
              for name in {**self.counts, **other.counts}}
    rest = {field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in dataclasses.fields(self) if field.name != 'counts'}
    return RolloutStats(**rest, counts=counts)

  @property
  def occupancy(self) -> float:
    """Share of decoded slot-steps that sampled a token."""
    return self.num_generated / max(1, self.num_generated + self.num_idle)

  def add(self, turn: TurnRecord):
    """Counts a turn."""
    self.num_turns += 1
    self.num_generated += len(turn.written)
    self.num_malformed += turn.action.kind is ActionKind.MALFORMED
    self.num_length_stops += turn.stop is Stop.LENGTH
    self.num_repetition_stops += turn.stop is Stop.REPETITION
