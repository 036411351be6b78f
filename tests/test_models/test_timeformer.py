"""Equations 4 and 5: windows, and the layers against loops written from the paper."""

import math

import pytest
import torch

from mmnfn.models import MultiScaleFMRITimeformer
from mmnfn.models.transformer import sliding_plan, window_spans

CPU = torch.device('cpu')
DIMS, HEADS, W, S = 8, 2, 6, 3


def timeformer(**kwargs):
    torch.manual_seed(0)
    kwargs = {**dict(window_size=W, window_stride=S), **kwargs}
    module = MultiScaleFMRITimeformer(DIMS, HEADS, **kwargs).double().eval()
    for parameter in module.parameters():  # norms and biases away from one and zero
        torch.nn.init.normal_(parameter, std=0.4)
    return module


def attention(attn, x):
    """Attend within one slice (L, D) query by query, without the output projection."""
    query, key, value = attn.qkv(x).chunk(3, dim=1)
    width = x.shape[1] // attn.num_heads
    out = torch.zeros_like(x)
    for head in range(attn.num_heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(x)):
            scores = torch.stack([query[i, part] @ key[j, part] for j in range(len(x))]) / math.sqrt(width)
            weights = scores.exp() / scores.exp().sum()
            out[i, part] = sum(weights[j] * value[j, part] for j in range(len(x)))
    return out


def whole_block(block, x):
    """Put one slice (L, D) through the whole transformer block."""
    x = x + block.attention.out(attention(block.attention, block.attention_norm(x)))
    return x + block.mlp(block.mlp_norm(x))


def slices(x, size=W, stride=S):
    """List q_i = r[i·s : i·s + w] until the whole r is covered."""
    result, i = [], 0
    while len(x):
        result.append((i * stride, x[i * stride : i * stride + size]))
        if i * stride + size >= len(x):
            break
        i += 1
    return result


def loop_overlap(module, x):
    outputs = []
    for block in module.layers:
        normed = block.attention_norm(x)
        total, count = torch.zeros_like(x), torch.zeros(len(x), 1, dtype=x.dtype)
        for start, part in slices(normed):
            total[start : start + len(part)] += attention(block.attention, part)
            count[start : start + len(part)] += 1
        x = x + block.attention.out(total / count)
        x = x + block.mlp(block.mlp_norm(x))
        outputs.append(x)
    return outputs


def loop_concat(module, x):
    outputs = []
    for block in module.layers:
        x = torch.cat([whole_block(block, part) for _, part in slices(x)])
        outputs.append(x)
    return outputs


def held_by(plan, length):
    """List the windows of a plan as lists of tokens, and the sum of each token's shares."""
    places = range(length) if plan.places is None else plan.places.tolist()
    windows, shares = [], torch.zeros(length)
    for start, share in plan.partitions:
        assert len(share) % plan.size == 0 and len(share) == len(places)
        for first in range(start, len(places) - plan.size + 1, plan.size):
            piece = slice(first, first + plan.size)
            assert (share[piece] > 0).all() or (share[piece] == 0).all()
            if share[first] > 0:
                windows.append([places[i] for i in range(len(places))[piece]])
                shares[windows[-1]] += share[piece, 0]
    if plan.short is not None:
        parts = plan.short.index.split([count * size for count, size in plan.short.shapes])
        for part, (_, size) in zip(parts, plan.short.shapes):
            windows += [[places[i] for i in window.tolist()] for window in part.split(size)]
        shares.index_add_(0, torch.tensor([places[i] for i in plan.short.index.tolist()]), plan.short.share[:, 0])
    return windows, shares


@pytest.mark.parametrize('size, stride', [(64, 32), (48, 16), (32, 32)])
@pytest.mark.parametrize('lengths', [(130, 0, 5, 64, 97), (128,), (64, 192), (7, 3), (5, 200, 9, 31, 300)])
def test_plan_has_the_windows_of_equation_4_and_no_others(lengths, size, stride):
    plan = sliding_plan(lengths, size, stride, CPU)
    windows, shares = held_by(plan, sum(lengths))
    expected, offset = [], 0
    for length in lengths:
        spans = window_spans(length, size, stride)
        assert spans == [(start, start + len(part)) for start, part in slices(range(length), size, stride)]
        expected += [list(range(offset + a, offset + b)) for a, b in spans]
        offset += length
    assert sorted(windows) == sorted(expected)
    torch.testing.assert_close(shares, torch.ones(sum(lengths)))
    if plan.places is not None:
        assert torch.equal(plan.places[plan.restore], torch.arange(sum(lengths)))


def test_whole_windows_need_no_copy():
    plan = sliding_plan((128,), 64, 32, CPU)
    assert plan.places is None and plan.short is None and [start for start, _ in plan.partitions] == [0, 32]


@pytest.mark.parametrize('merge, loop', [('overlap', loop_overlap), ('concat', loop_concat)])
def test_equals_loop(merge, loop):
    module = timeformer(merge=merge)
    lengths = (14, 0, 5, 6, 10)
    x = torch.randn(2, sum(lengths), DIMS, dtype=torch.float64)
    outputs = module(x, lengths)
    assert len(outputs) == 2
    for sample in range(2):
        rois = [loop(module, roi) for roi in x[sample].split(lengths) if len(roi)]
        for layer, (out, out_lengths) in enumerate(outputs):
            expected = [roi[layer] for roi in rois]
            assert [length for length in out_lengths if length] == [len(roi) for roi in expected]
            torch.testing.assert_close(out[sample], torch.cat(expected), rtol=0, atol=1e-10)


def test_plan_made_in_inference_serves_training():
    module = timeformer(window_size=10, window_stride=5)  # sizes that no other test caches
    x = torch.randn(1, 11, DIMS, dtype=torch.float64)
    for merge in ('overlap', 'concat'):
        module.merge = merge
        with torch.inference_mode():
            module(x, (11,))
        later = x.clone().requires_grad_()
        module(later, (11,))[-1][0].sum().backward()
        assert later.grad.abs().sum() > 0
