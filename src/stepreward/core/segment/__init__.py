"""Text into steps, losslessly: joining the texts of the steps gives the text back, to the character.

Each method decides where steps end; its separator (a blank line, a line break, a marker) stays at the end of the step
before. No step is blank unless the whole text is. Methods that cut at characters leave fenced code and display
mathematics whole, unless `protect` is False. All take linear time on any input. They form the family `segment`.
"""

from stepreward.core.segment.merging import merge_short as merge_short
from stepreward.core.segment.sections import from_messages as from_messages
from stepreward.core.segment.spans import protected as protected
