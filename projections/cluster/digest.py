"""The canonical image of a state and its hash: equal digests are equal states.

The image is also what a snapshot stores, so a snapshot is verified by hashing its bytes. Empty
containers, flags that are off and the later ones among the numbers at 0 are not written: adding such a
field leaves old digests as they are.
"""

from __future__ import annotations

import hashlib
from typing import Any, get_type_hints

import msgspec

from eventsched.projections.cluster.state import CANONICAL, ClusterState

_HINTS = get_type_hints(ClusterState)
_EMPTY = ClusterState()
_LATER = ("tick",)
"""Numbers that came after the first golden logs."""


def _field(name: str) -> Any:
    empty = getattr(_EMPTY, name)
    if empty is False or name in _LATER:
        return msgspec.field(default=empty)
    return msgspec.field(default_factory=type(empty))


_Image: Any = msgspec.defstruct(
    "StateImage", [(name, _HINTS[name], _field(name)) for name in CANONICAL], omit_defaults=True
)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Image)


def encode_state(state: ClusterState) -> bytes:
    """The canonical image (msgpack). Equal states give equal bytes."""
    return _encoder.encode(_Image(**{name: getattr(state, name) for name in CANONICAL}))


def decode_state(image: bytes) -> ClusterState:
    """The state of an image; raises msgspec.MsgspecError when the bytes are none of ours."""
    decoded = _decoder.decode(image)
    return ClusterState(**{name: getattr(decoded, name) for name in CANONICAL})


def digest_of_image(image: bytes) -> str:
    """The digest of the state that `image` holds, in hex (BLAKE2b, 16 bytes)."""
    return hashlib.blake2b(image, digest_size=16).hexdigest()


def digest(state: ClusterState) -> str:
    """The canonical hash of a state."""
    return digest_of_image(encode_state(state))
