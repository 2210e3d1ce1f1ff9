"""The verb export."""

from __future__ import annotations

from pathlib import Path

from stepreward.core.runtime.flows import Scorer
from stepreward.pipeline.export_model import DEFAULT_LAYOUT, Exported, export_model


def export(
    model: str | Path | Scorer,
    out: str | Path | None = None,
    *,
    layout: str = DEFAULT_LAYOUT,
    dtype: str = "",
    push: str = "",
    public: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Writes a reward model for other libraries, with a model card; its scores stay what they are.

    `stepreward.load` reads every layout back. An upload needs a token of the hub: `HF_TOKEN`, or `hf auth login`.

    Args:
        model: folder, hub name, or a loaded scorer.
        out: new folder to write; None uploads alone.
        layout: `token-classification`, `sequence-classification`, `trl-prm`, `adapter`, `qwen-prm`, `qwen-reward` or
            `stepreward`.
        dtype: numbers of the weights, such as `bfloat16`; empty for those that they were saved in.
        push: hub name to upload to; empty for none.
        public: make a new repository of the hub public.
        overwrite: replace an exported model in `out`.

    Raises:
        InputError: the layout cannot hold the model; the error names those that can. Or `out` holds something.
        ModelError: the model cannot be read, or the hub refuses the upload.
        StoreError: the folder cannot be written.
        UnknownNameError: there is no such layout.
    """
    return export_model(model, out, layout=layout, dtype=dtype, push_to=push, public=public, overwrite=overwrite)
