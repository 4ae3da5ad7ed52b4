"""MixFormerV2 weights by the rule of the golden data (../shared/golden/mixformerv2): trained ones are not shipped."""

import math
import zlib

import numpy as np
import torch

from lighttrack_ros.networks.mixformerv2 import BASE, SMALL, MixFormerV2

ARCHITECTURES = {"small": SMALL, "base": BASE}
_REG_TOKENS_SEED = {"small": "#8", "base": "#11"}


def rule_made_weights(variant):
    """The tensors of "small" or "base" by name, in the order of the official checkpoint."""
    network = MixFormerV2(ARCHITECTURES[variant])
    state = network.state_dict()
    first = ["backbone.pos_embed_s", "backbone.pos_embed_t", "backbone.reg_tokens", "backbone.pos_embed_reg"]
    names = first + [name for name in state if name not in first]
    return {name: _tensor(name, state[name], _REG_TOKENS_SEED[variant]) for name in names}


def _tensor(name, like, reg_tokens_seed):
    if name in ("backbone.pos_embed_s", "backbone.pos_embed_t"):
        return like.clone()
    seed = name + reg_tokens_seed if name == "backbone.reg_tokens" else name
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(seed.encode())))
    z = generator.standard_normal(tuple(like.shape)).astype(np.float32)
    if name in ("backbone.reg_tokens", "backbone.pos_embed_reg"):
        value = np.float32(0.5) * z
    elif name.endswith(".bias"):
        value = np.float32(0.02) * z
    elif like.dim() == 1:
        gain = 4 if name == "box_head.layers.1.1.weight" else 1
        value = np.float32(gain) * (1 + np.float32(0.1) * z)
    else:
        gain = 1.5 if name.endswith(".attn.qkv.weight") else 1
        value = np.float32(gain / math.sqrt(math.prod(like.shape[1:]))) * z
    return torch.from_numpy(value)
