"""What a summary says of answers that were cut: a limit that is too small looks like a policy that knows nothing."""

from __future__ import annotations

from stepreward.core.runtime.flows import Bill, Limited, Policy
from stepreward.policies.expert import WithExpert
from stepreward.policies.http import HttpPolicy


def cut_note(bill: Bill, policy: Policy) -> str:
    """How many samples were cut and why, and how many have no answer behind their thinking; "" where none."""
    writer = policy.policy if isinstance(policy, WithExpert) else policy
    limit = f"max_tokens={writer.max_tokens}" if isinstance(writer, Limited) else "the policy's limit"
    thoughts = writer.usage.only_thoughts if isinstance(writer, HttpPolicy) else 0
    what = f"{thoughts:,} wrote nothing but thinking: raise max_tokens, or lower reasoning_effort"
    if not bill.cut:
        return f"of {bill.drawn:,} samples {what}" if thoughts else ""
    note = f"{bill.cut:,} of {bill.drawn:,} samples reached {limit}, or the end of the context, and are cut"
    if isinstance(writer, HttpPolicy) and writer.usage.filtered:
        note += f"; a filter of the server cut {writer.usage.filtered:,} of them"
    if thoughts:
        note += f"; {what}"
    return note
