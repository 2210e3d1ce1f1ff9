"""What steps are worth: estimators by rollouts, transforms of their results, filters, and runs that resume."""

from stepreward.label.run import label_many as label_many
from stepreward.label.run import load_labels as load_labels
