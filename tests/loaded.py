"""What the processes of `tests.forked` find loaded: the libraries that take seconds to load, none of this package."""

import gc
import os

# Read where they are loaded.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", OMP_NUM_THREADS="1")

import pyarrow.parquet
import scipy.stats
import sklearn.isotonic
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, Trainer

LOADED = (pyarrow, scipy, sklearn, torch, AutoModel, AutoModelForCausalLM, AutoTokenizer, Trainer)

# A forked process neither searches this for garbage nor copies its pages for that.
gc.freeze()
