"""Labels of steps: estimators by rollouts, transforms of their values, filters, and labelling runs that resume."""

from stepreward.label.many_problems import label_many as label_many
from stepreward.label.many_problems import load_labels as load_labels
