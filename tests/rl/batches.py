"""Random ragged batches, and the losses in a few lines of NumPy each."""

import numpy as np


def ragged(seed, rows=4, tokens=9, extreme=False, packed=True):
    """(logprobs, old, advantages, segments): rows with none, one or several sequences, padding between and after them."""
    rng = np.random.default_rng(seed)
    segments = np.zeros((rows, tokens), np.int32)
    for row in segments[1:]:  # the first row is masked as a whole
        cut = sorted(rng.choice(tokens + 1, 4, replace=False))
        row[cut[0] : cut[1]] = 1
        if packed:
            row[cut[2] : cut[3]] = 2
    logprobs = -rng.exponential(1.0, (rows, tokens))
    spread = 20.0 if extreme else 0.3
    old = logprobs + rng.uniform(-spread, spread, (rows, tokens))
    by_sequence = rng.normal(size=(rows, 3))
    return logprobs, old, np.take_along_axis(by_sequence, segments, axis=1), segments


def sequences(segments):
    """(row, indices) of each sequence."""
    return [
        (r, np.flatnonzero(row == s)) for r, row in enumerate(segments) for s in range(1, row.max() + 1) if (row == s).any()
    ]


def loss_and_gradient(name, how, length, logprobs, old, advantages, segments, clip):
    """The loss of a batch and its gradient by `logprobs`, by loops."""
    all_of, gradient, loss = sequences(segments), np.zeros_like(logprobs), 0.0
    total = sum(len(at) for _, at in all_of)
    for r, at in all_of:
        weight = {"token": 1 / total, "sequence": 1 / (len(at) * len(all_of)), "constant": 1 / (len(all_of) * length)}[how]
        sequence_ratio = np.exp(np.mean(logprobs[r, at] - old[r, at]))
        for t in at:
            a, ratio = advantages[r, t], np.exp(logprobs[r, t] - old[r, t])
            if name == "reinforce":
                value, slope = -a * logprobs[r, t], {t: -a}
            elif name == "cispo":
                capped = min(ratio, 1 + clip.high)
                value, slope = -capped * a * logprobs[r, t], {t: -capped * a}
            else:
                ratio = sequence_ratio if name == "gspo" else ratio
                kept = ratio * a <= np.clip(ratio, 1 - clip.low, 1 + clip.high) * a
                value = -min(ratio * a, np.clip(ratio, 1 - clip.low, 1 + clip.high) * a)
                if clip.dual and a < 0 and value > -clip.dual * a:
                    value, kept = -clip.dual * a, False
                slope = {s: -a * ratio / len(at) for s in at} if name == "gspo" else {t: -a * ratio}
                slope = slope if kept else {}
            loss += weight * value
            for s, d in slope.items():
                gradient[r, s] += weight * d
    return loss, gradient
