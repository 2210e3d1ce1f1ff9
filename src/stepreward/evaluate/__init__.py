"""Benchmarks and metrics of step scores; importing the package registers every benchmark."""

from stepreward.evaluate import agents as agents
from stepreward.evaluate import best_of_n as best_of_n
from stepreward.evaluate import biases as biases
from stepreward.evaluate import calibration as calibration
from stepreward.evaluate import comparisons as comparisons
from stepreward.evaluate import first_errors as first_errors
from stepreward.evaluate import pools as pools
from stepreward.evaluate import prm_bench as prm_bench
from stepreward.evaluate import reason_eval as reason_eval
from stepreward.evaluate import robustness as robustness
from stepreward.evaluate import step_labels as step_labels
from stepreward.evaluate import web as web
