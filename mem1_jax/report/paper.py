"""The paper's figures (arXiv 2506.15841), for orientation: another model on other data.

Qwen2.5-7B and -14B on HotpotQA, NQ, the open web and WebShop; em and f1 are sums over questions,
peak_tokens leave the question out, seconds are of a trajectory, WebShop's reward is out of 1. A
field that the paper does not give is missing. Nothing here may be compared with a run of ours.
"""

from collections.abc import Mapping
import dataclasses

SOURCE = 'arXiv 2506.15841'
CAVEAT = (f"The paper's figures ({SOURCE}): Qwen2.5 of 7B and 14B, other data, other hardware. "
          'For orientation, not comparable.')
_MULTI, _WIKI, _WEB, _SHOP = 'multi-objective QA', 'Wiki QA', 'web QA', 'WebShop'


@dataclasses.dataclass(frozen=True)
class Row:
  """What the paper says of one agent on one number of objectives."""

  agent: str
  domain: str
  objectives: int
  values: Mapping[str, float]


def _row(agent: str, objectives: int, em: float, f1: float | None, peak: float | None,
         seconds: float | None, domain: str = _MULTI) -> Row:
  values = {'em': em, 'em_per_question': em / objectives, 'f1': f1, 'peak_tokens': peak,
            'seconds': seconds}
  return Row(agent, domain, objectives, {k: v for k, v in values.items() if v is not None})


ROWS = (
    _row('MEM1-7B', 1, .405, .471, None, None, _WIKI),
    _row('Search-R1', 1, .445, .516, None, None, _WIKI),
    _row('MEM1-7B', 1, .397, .485, 579, None, _WEB),
    Row('MEM1-7B', _SHOP, 1, {'reward': .7087, 'peak_tokens': 810, 'seconds': 2.61}),
    Row('AgentLM-13B', _SHOP, 1, {'reward': .7080, 'peak_tokens': 2360, 'seconds': 5.23}),
    _row('MEM1-7B', 2, .709, .838, 640, 6.49),
    _row('14B, full context', 2, .732, .902, 1560, 5.49),
    _row('7B, full context', 2, .268, None, 1960, None),
    _row('7B + A-MEM', 2, .286, None, 1410, None),
    _row('7B, truncation', 2, .262, None, 828, None),
    _row('MEM1-7B', 8, 1.87, 2.31, 801, 8.68),
    _row('14B, full context', 8, 1.55, 1.87, 4470, 16.2),
    _row('7B, full context', 8, .87, None, 4950, None),
    _row('7B + A-MEM', 8, 1.13, None, 1860, None),
    _row('7B, truncation', 8, .97, None, 1180, None),
    _row('MEM1-7B', 16, 1.97, 2.39, 1040, 8.70),
    _row('14B, full context', 16, .567, .703, 3840, 29.7),
    _row('7B, full context', 16, .165, .213, 4330, 15.5),
    _row('7B + A-MEM', 16, .730, None, 1880, 91.2),
    _row('7B, truncation', 16, .396, None, 1330, 22.1),
    _row('Search-R1', 16, .520, .647, 2480, 23.4),
)
