"""From step rewards to advantages; importing the package registers every method."""

from stepreward.credit import gating as gating
from stepreward.credit import increments as increments
from stepreward.credit import modulation as modulation
from stepreward.credit import outcome as outcome
from stepreward.credit import process as process
from stepreward.credit import rules as rules
from stepreward.credit import rules_calls as rules_calls
from stepreward.credit import rules_sql as rules_sql
from stepreward.credit import shaping as shaping
from stepreward.credit import states as states
from stepreward.credit import trees as trees
from stepreward.credit import turns as turns
