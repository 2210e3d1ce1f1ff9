"""Ways to spend compute with step scores, as flows over any policy and scorer."""

from stepreward.core import aggregation as aggregation
from stepreward.core import selection as selection
from stepreward.search import adaptive_beam as adaptive_beam
from stepreward.search import ahead as ahead
from stepreward.search import beam as beam
from stepreward.search import early as early
from stepreward.search import ets as ets
from stepreward.search import mcts as mcts
from stepreward.search import nucleus as nucleus
from stepreward.search import particles as particles
from stepreward.search import rebase as rebase
from stepreward.search import repair as repair
from stepreward.search import rest_mcts as rest_mcts
from stepreward.search import reuse as reuse
from stepreward.search import sampling as sampling
from stepreward.search import steering as steering
from stepreward.search import stopping as stopping
from stepreward.search import tilting as tilting
from stepreward.search import tournaments as tournaments
from stepreward.search import utility as utility
from stepreward.search import value_tree as value_tree
