"""Packed trees against single padded trajectories: equal scores, equal gradients, fewer tokens."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled
from tests.score.models import SEEDS, model, random_trajectories, tokenizer

from stepreward.core.errors import ModelError
from stepreward.core.tree import StepTree
from stepreward.core.types import Trajectory
from stepreward.score.encode.blocked_mask import BlockedMask
from stepreward.score.encode.packing import FLEX, PackedBatch, narrow, pack, plan
from stepreward.score.encode.per_step import EncoderRecord, depth_first
from stepreward.score.encode.readout import Readout
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import fresh_backbone

MODELS = {kind: model(kind) for kind in ("qwen2", "llama")}


def padded_logits(reward: StepRewardModel, trajectories: list[Trajectory]) -> list[torch.Tensor]:
    """Logits of each trajectory's action steps, by the plain way: one padded row a trajectory."""
    encoder, rows, reads = reward.encoder, [], []
    for t in trajectories:
        ids = encoder.prompt_ids(t.problem)
        here = []
        for step in t.steps:
            ids = ids + encoder.step_ids(step)
            if step.kind == "action":
                here.append(len(ids) - 1)
        rows.append(ids)
        reads.append(here)
    lengths = torch.tensor([len(r) for r in rows])
    ids = torch.zeros((len(rows), int(lengths.max())), dtype=torch.int64)
    for r, row in enumerate(rows):
        ids[r, : len(row)] = torch.tensor(row)
    row = torch.tensor([r for r, here in enumerate(reads) for _ in here], dtype=torch.int64)
    column = torch.tensor([c for here in reads for c in here], dtype=torch.int64)
    return list(reward.forward_padded(ids, lengths, row, column).split([len(h) for h in reads]))


def packed_logits(reward: StepRewardModel, groups: list[list[Trajectory]], row_tokens: int) -> list[torch.Tensor]:
    """The same numbers through packed trees."""
    trees = [StepTree.from_trajectories(group) for group in groups]
    encoded = [reward.encoder.encode_tree(tree) for tree in trees]
    found: dict[tuple[int, int], torch.Tensor] = {}
    for rows in plan([len(e) for e in encoded], row_tokens, 2000):
        batch = pack(encoded, rows)
        logits = reward(batch)
        found |= {(int(t), int(n)): logits[i] for i, (t, n) in enumerate(zip(batch.tree, batch.node, strict=True))}
    made = []
    for t, tree in enumerate(trees):
        for path in tree.paths:
            nodes = [int(n) for n in path if n >= 0 and tree.action[n]]
            made.append(torch.stack([found[t, n] for n in nodes]) if nodes else torch.zeros((0, 1)))
    return made


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("row_tokens", [1, 300, 2000])
def test_packed_scores_equal_single_ones(kind: str, row_tokens: int) -> None:
    groups = [random_trajectories(seed) for seed in range(5)]
    with torch.inference_mode():
        packed = torch.cat(packed_logits(MODELS[kind], groups, row_tokens))
        single = torch.cat(padded_logits(MODELS[kind], [t for group in groups for t in group]))
    assert single.std() > 0.1
    torch.testing.assert_close(packed, single, rtol=1e-4, atol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", MODELS)
def test_flex_attention_gives_the_scores_of_a_dense_mask(kind: str) -> None:
    """Without its compiler, which takes minutes on a CPU; the block mask is that of the compiled kernel."""
    groups, backbone = [random_trajectories(seed) for seed in range(5)], MODELS[kind].backbone
    with torch.inference_mode():
        dense = torch.cat(packed_logits(MODELS[kind], groups, 300))
    backbone.set_attn_implementation(FLEX)
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch says that this way is slow, and uses names that it deprecates.
            flex = torch.cat(packed_logits(MODELS[kind], groups, 300))
    finally:
        backbone.set_attn_implementation("sdpa")
    torch.testing.assert_close(flex, dense, rtol=1e-4, atol=1e-5)


@settings(max_examples=scaled(15), deadline=None)
@given(SEEDS, st.integers(1, 8))
def test_packed_scores_equal_single_ones_on_random_trees(seed: int, rows: int) -> None:
    group = random_trajectories(seed, rows)
    with torch.inference_mode():
        packed, single = packed_logits(MODELS["qwen2"], [group], 1), padded_logits(MODELS["qwen2"], group)
    torch.testing.assert_close(torch.cat(packed), torch.cat(single), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_packed_gradients_equal_single_ones(kind: str) -> None:
    reward = MODELS[kind]
    groups = [random_trajectories(seed) for seed in range(3)]
    gradients = []
    for logits in (packed_logits(reward, groups, 400), padded_logits(reward, [t for g in groups for t in g])):
        reward.zero_grad()
        torch.nn.functional.softplus(torch.cat(logits)).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in reward.parameters() if p.grad is not None]))
    assert gradients[1].norm() > 0
    assert (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 1e-4


@given(SEEDS)
def test_depth_first_numbers_are_a_preorder(seed: int) -> None:
    tree = StepTree.from_trajectories(random_trajectories(seed, 8))
    enter, leave = depth_first(tree)
    assert sorted(enter) == list(range(tree.n))
    for i in range(tree.n):
        for j in range(tree.n):
            above = tree.prefix(j)[: len(tree.prefix(i))] == tree.prefix(i)
            assert (enter[i] <= enter[j] < leave[i]) == above


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 80), st.integers(1, 200))
def test_a_plan_holds_every_tree_once_within_its_limits(lengths: list[int], row: int, batch: int) -> None:
    planned = list(plan(lengths, row, batch))
    assert sorted(i for rows in planned for r in rows for i in r) == list(range(len(lengths)))
    for rows in planned:
        used = [sum(lengths[i] for i in r) for r in rows]
        assert all(u <= row or len(r) == 1 for u, r in zip(used, rows, strict=True))
        assert len(rows) == 1 or len(rows) * max(used) <= batch


@given(st.lists(st.integers(0, 60), max_size=30), st.integers(1, 80))
def test_a_tree_goes_into_the_first_row_with_room_the_longest_trees_first(lengths: list[int], row_tokens: int) -> None:
    rows: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        room = (row for row in rows if sum(lengths[j] for j in row) + lengths[i] <= row_tokens)
        row = next(room, None)
        if row is None:
            rows.append([i])
        else:
            row.append(i)
    rows.sort(key=lambda row: -sum(lengths[i] for i in row))
    assert [row for batch in plan(lengths, row_tokens, 100) for row in batch] == rows


@settings(max_examples=scaled(15), deadline=None)
@given(SEEDS, st.integers(1, 12), st.integers(20, 300))
def test_parts_of_a_wide_tree_hold_every_trajectory_once_within_the_limit(seed: int, rows: int, limit: int) -> None:
    tree, encoder = StepTree.from_trajectories(random_trajectories(seed, rows)), MODELS["qwen2"].encoder
    parts = list(narrow(tree, encoder, limit))
    assert sorted(i for keep, _, _ in parts for i in keep) == list(range(rows))
    for keep, part, encoded in parts:
        assert len(encoded) <= limit or len(keep) == 1
        own = tree.trajectories()
        assert [t.steps for t in part.trajectories()] == [own[i].steps for i in keep]
        assert len(encoded) == len(encoder.encode_tree(part))


def test_each_shared_prefix_is_encoded_once() -> None:
    group = random_trajectories(3, 12)
    tree = StepTree.from_trajectories(group)
    encoded = MODELS["qwen2"].encoder.encode_tree(tree)
    encoder = MODELS["qwen2"].encoder
    unique = {tree.prefix(i) for i in range(1, tree.n)}
    expected = len(encoder.prompt_ids(tree.problem)) + sum(len(encoder.step_ids(p[-1])) for p in unique)
    assert len(encoded) == expected == pack([encoded]).tokens
    assert np.unique(encoded.read[tree.action]).size == tree.action.sum()


SURPRISED = model(record=EncoderRecord(readout=Readout(surprise=True)))


def slow_least(reward: StepRewardModel, trajectory: Trajectory) -> list[float]:
    """Least log-probability of each step's tokens after its first, by one padless pass over the trajectory alone."""
    ids, spans = reward.encoder.prompt_ids(trajectory.problem), []
    for step in trajectory.steps:
        spans.append((len(ids), len(ids) + len(reward.encoder.step_ids(step))))
        ids = ids + reward.encoder.step_ids(step)
    hidden = reward.backbone(input_ids=torch.tensor([ids]))[0][0]
    said = (hidden @ reward.backbone.get_input_embeddings().weight.T).log_softmax(-1)
    return [min([0.0, *(float(said[t - 1, ids[t]]) for t in range(start + 1, end))]) for start, end in spans]


def only_surprise() -> StepRewardModel:
    """A model whose head reads nothing but surprise."""
    made = model(record=EncoderRecord(readout=Readout(surprise=True)))
    with torch.no_grad():
        made.head.weight.zero_()
        made.head.weight[0, -1] = 1
        made.head.bias.zero_()
    return made


@pytest.mark.parametrize("row_tokens", [1, 2000])
def test_surprise_is_the_least_log_probability_of_a_step(row_tokens: int) -> None:
    reward, groups = only_surprise(), [random_trajectories(seed) for seed in range(4)]
    with torch.inference_mode():
        packed = packed_logits(reward, groups, row_tokens)
        for logits, t in zip(packed, [t for group in groups for t in group], strict=True):
            expected = [v for v, step in zip(slow_least(reward, t), t.steps, strict=True) if step.kind == "action"]
            np.testing.assert_allclose(logits[:, 0].numpy(), expected, rtol=1e-4, atol=1e-4)
            assert all(value < -0.5 for value in expected)


def test_gradients_flow_through_surprise() -> None:
    reward, (group,) = only_surprise(), [random_trajectories(3)]
    torch.cat(packed_logits(reward, [group], 300)).sum().backward()
    embeddings = reward.backbone.get_input_embeddings().weight
    assert embeddings.grad is not None
    # Central difference in a direction: the same number as the gradient's.
    direction = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))
    slope, values = float((embeddings.grad * direction).sum()), []
    with torch.no_grad():
        for sign in (1, -1):
            embeddings += sign * 1e-3 * direction
            values.append(float(torch.cat(packed_logits(reward, [group], 300)).double().sum()))
            embeddings -= sign * 1e-3 * direction
    assert slope == pytest.approx((values[0] - values[1]) / 2e-3, rel=0.03)


def test_surprise_needs_tied_embeddings_and_survives_saving(tmp_path: Path) -> None:
    backbone = fresh_backbone(tokenizer(), hidden=32, layers=1)
    backbone.config.tie_word_embeddings = False
    with pytest.raises(ModelError, match="set surprise=False"):
        StepRewardModel(
            backbone,
            tokenizer(),
            EncoderRecord(readout=Readout(surprise=True)),
        )
    SURPRISED.save_pretrained(tmp_path)
    again, group = StepRewardModel.from_pretrained(tmp_path), random_trajectories(1)
    with torch.inference_mode():
        one, other = (torch.cat(packed_logits(m, [group], 300)) for m in (SURPRISED, again))
    torch.testing.assert_close(one, other)


def test_a_fresh_head_ranks_steps_by_surprise_for_any_width() -> None:
    record = EncoderRecord(readout=Readout("softmax", surprise=True, n_labels=3, positive=1))
    reward = StepRewardModel(fresh_backbone(tokenizer(), hidden=32, layers=1), tokenizer(), record)
    assert reward.head.weight[:, -1].tolist() == [0, 1, 0]


def long_trees() -> list[list[Trajectory]]:
    """Wide trees whose rows have several blocks of tokens."""
    return [random_trajectories(seed, 24) for seed in range(4)]


def batch_of(reward: StepRewardModel, row_tokens: int) -> PackedBatch:
    encoded = [reward.encoder.encode_tree(StepTree.from_trajectories(group)) for group in long_trees()]
    (rows,) = plan([len(one) for one in encoded], row_tokens, 100_000)
    return pack(encoded, rows)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("numbers", [torch.float32, torch.bfloat16])
def test_blocks_of_attention_give_outputs_and_gradients_of_the_dense_mask(kind: str, numbers: torch.dtype) -> None:
    reward, batch = MODELS[kind], batch_of(MODELS[kind], 1500)
    assert isinstance(batch.mask_of(reward.backbone), BlockedMask)
    found = []
    for one in (batch, replace(batch, given=batch.mask())):
        reward.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=numbers == torch.bfloat16):
            logits = reward(one).float()
        torch.nn.functional.softplus(logits).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in reward.parameters() if p.grad is not None])
        found.append((logits.detach(), gradient))
    (blocked, one), (dense, other) = found
    loose = numbers == torch.bfloat16
    assert dense.std() > 0.1
    assert (blocked - dense).abs().max() < (3e-2 if loose else 1e-5) * dense.abs().max()
    assert (one - other).norm() / other.norm() < (2e-2 if loose else 1e-5)


def test_blocks_of_attention_hold_each_visible_pair_once() -> None:
    batch = batch_of(MODELS["qwen2"], 1500)
    mask = BlockedMask.of(batch.enter.numpy(), batch.leave.numpy(), batch.mask)
    assert mask is not None
    rows, width = batch.enter.shape
    seen = np.zeros((rows * width, rows * width), bool)
    begin = 0
    for keys, pairs in mask.parts:
        seen[begin : begin + len(pairs), keys.numpy()] = pairs.numpy()
        begin += len(pairs)
    assert begin == rows * width
    for row, dense in enumerate(batch.mask()[:, 0].numpy()):
        here = slice(row * width, (row + 1) * width)
        np.testing.assert_array_equal(seen[here, here], dense)
    assert seen.sum() == batch.mask().sum()
    assert sum(pairs.numel() for _, pairs in mask.parts) < rows * width**2 / 2


def test_another_attention_gets_the_dense_mask() -> None:
    """Whatever a backbone does with its mask beside the attention of PyTorch is done with the dense one."""
    batch = batch_of(MODELS["qwen2"], 1500)
    mask, dense = batch.mask_of(MODELS["qwen2"].backbone), batch.mask()
    assert isinstance(mask, BlockedMask)
    assert mask.shape == dense.shape
    assert mask[:, :, :, : dense.shape[-1]] is mask
    for part in (mask[:, :, :5], mask & True, torch.cat([mask]), mask.to(torch.uint8), torch.where(mask, 1, 0)):
        assert type(part) is torch.Tensor
    backward = torch.arange(mask.shape[2]).flip(0)
    assert torch.equal(mask[:, :, backward], dense[:, :, backward])
    assert torch.equal(mask[:, :, 7:90], dense[:, :, 7:90])
    assert torch.equal(torch.where(mask, 0.0, -1.0), torch.where(dense, 0.0, -1.0))
    assert torch.equal(torch.cat([mask, dense]), torch.cat([dense, dense]))


def test_short_rows_have_a_dense_mask() -> None:
    reward = MODELS["qwen2"]
    encoded = [reward.encoder.encode_tree(StepTree.from_trajectories(random_trajectories(0, 1)))]
    assert type(pack(encoded).mask_of(reward.backbone)) is torch.Tensor


def chains(rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth-first numbers of one packed row of chains, whose tokens see all tokens of their own chain before them."""
    enter = np.arange(rows * length)[None]
    return enter, (enter // length + 1) * length


def test_blocks_are_taken_where_they_save_half_of_the_pairs() -> None:
    """Two chains of 128 tokens are two blocks of 128 x 128 pairs of 256 x 256; in one of 256 the second sees all."""

    def dense() -> torch.Tensor:
        raise AssertionError("not needed")

    assert BlockedMask.of(*chains(2, 128), dense) is not None
    assert BlockedMask.of(*chains(1, 256), dense) is None


def test_options_of_attention_reach_every_block() -> None:
    enter, leave = chains(3, 100)
    at = torch.arange(300)
    dense = ((at[:, None] >= at) & (at[:, None] // 100 == at // 100))[None, None]
    mask = BlockedMask.of(enter, leave, lambda: dense)
    query, key, value = torch.randn(3, 1, 2, 300, 8, generator=torch.Generator().manual_seed(0))
    attend = torch.nn.functional.scaled_dot_product_attention
    assert mask is not None
    for scale in (0.1, 3.0):
        found, wanted = (attend(query, key, value, attn_mask=one, scale=scale) for one in (mask, dense))
        torch.testing.assert_close(found, wanted)
