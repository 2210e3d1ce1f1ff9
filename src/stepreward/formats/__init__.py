"""Readers and writers of public data: `read(path)` finds the format by its evidence, `write(path, items, form)`."""

from stepreward.core.types import Trajectory as Trajectory
from stepreward.formats.format import Format as Format
from stepreward.formats.format import has as has
from stepreward.formats.problems import read_problems as read_problems
from stepreward.formats.registry import Reading as Reading
from stepreward.formats.registry import detect as detect
from stepreward.formats.registry import formats as formats
from stepreward.formats.registry import read as read
from stepreward.formats.registry import read_comparisons as read_comparisons
from stepreward.formats.registry import write as write
