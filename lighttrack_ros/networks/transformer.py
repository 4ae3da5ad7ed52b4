"""Building blocks of the transformer trackers: patch embedding, and blocks whose keys and values can be cached.

Names and order of operations are those of the common vision transformers (timm), so their checkpoints fit.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, cat, nn
from torch.nn import functional

# The networks' input is RGB, (value / 255 - MEAN) / STD.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

PATCH = 16  # pixels
HEAD_CHANNELS = 64  # per attention head


class KeysValues(NamedTuple):
    """Keys and values of tokens in one block's attention, (B, heads, tokens, 64) each."""

    keys: Tensor
    values: Tensor


class PatchEmbedding(nn.Module):
    """(B, 3, h, w) to (B, h / 16 * w / 16, channels), row by row."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, stride=PATCH)

    def forward(self, image: Tensor) -> Tensor:
        patches: Tensor = self.proj(image)
        return patches.flatten(2).transpose(1, 2)


class Block(nn.Module):
    """A pre-norm transformer block. Templates attend to templates only, so their keys and values can be cached."""

    def __init__(self, channels: int, mlp_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = _Attention(channels)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = _Mlp(channels, mlp_channels)

    def forward(self, tokens: Tensor, template_count: int) -> Tensor:
        """Templates (the first `template_count` tokens) attend to templates; the others attend to all tokens."""
        x = self.norm1(tokens)
        queries, own = self.attn.queries(x), self.attn.keys_values(x)
        templates = KeysValues(own.keys[:, :, :template_count], own.values[:, :, :template_count])
        mixed = cat(
            (
                _attention(queries[:, :, :template_count], templates),
                _attention(queries[:, :, template_count:], own),
            ),
            1,
        )
        return self._finish(tokens, mixed)

    def keys_values(self, tokens: Tensor) -> KeysValues:
        """Keys and values of `tokens` (B, tokens, channels) in this block."""
        return self.attn.keys_values(self.norm1(tokens))

    def attend(self, tokens: Tensor, seen: KeysValues) -> Tensor:
        """The block's output for `tokens` that attend to exactly `seen`."""
        return self._finish(tokens, _attention(self.attn.queries(self.norm1(tokens)), seen))

    def _finish(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        tokens = tokens + self.attn.proj(mixed)
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def queries(self, x: Tensor) -> Tensor:
        """(B, heads, tokens, 64), scaled by 1/8, a power of two: scaling here or later gives the same bits."""
        channels = self.proj.in_features
        y = functional.linear(x, self.qkv.weight[:channels], self.qkv.bias[:channels])
        queries: Tensor = y.unflatten(2, (-1, HEAD_CHANNELS)).transpose(1, 2) * HEAD_CHANNELS**-0.5
        return queries

    def keys_values(self, x: Tensor) -> KeysValues:
        channels = self.proj.in_features
        y = functional.linear(x, self.qkv.weight[channels:], self.qkv.bias[channels:])
        keys, values = y.unflatten(2, (2, -1, HEAD_CHANNELS)).permute(2, 0, 3, 1, 4)
        return KeysValues(keys, values)


def _attention(queries: Tensor, seen: KeysValues) -> Tensor:
    """Attention of queries (B, heads, tokens, 64): (B, tokens, channels)."""
    weights = (queries @ seen.keys.transpose(2, 3)).softmax(3)
    return (weights @ seen.values).transpose(1, 2).flatten(2)


class _Mlp(nn.Module):
    def __init__(self, channels: int, mlp_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, mlp_channels)
        self.fc2 = nn.Linear(mlp_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return y
