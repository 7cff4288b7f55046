"""Resources: what a job asks for and what a node has. Integers with units, nothing else."""

from __future__ import annotations

from msgspec import Struct

from eventsched.wire import Int


class Resources(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What one run needs.

    cpu_millis: thousandths of a core (1000 = one core).
    memory_bytes: hard limit; 0 = no limit, and nothing is reserved.
    gpus: whole GPUs, given to the run as exact devices.
    gpu_millis: instead of `gpus`, a share of one GPU in thousandths (1 to 999); others may get the rest.
    gpu_model: a model (`A100`) or a variant (`A100-SXM4-80GB`), in any case; "" = any. Several
        that will do are separated by `|`; all devices of a run answer to the same one of them.
    pids_max: processes and threads; 0 = the agent's default.
    """

    cpu_millis: Int = 1000
    memory_bytes: Int = 0
    gpus: Int = 0
    gpu_millis: Int = 0
    gpu_model: str = ""
    pids_max: Int = 0


class Gpu(Struct, frozen=True, omit_defaults=True, gc=False):
    """One GPU device of a node.

    uuid: stable identity (NVML's UUID).
    model: the short name users ask for (`A100`); variant: the longer label (`A100-SXM4-80GB`).
    """

    uuid: str
    model: str
    variant: str = ""
    memory_bytes: Int = 0


class Capacity(Struct, frozen=True, omit_defaults=True):
    """What a node offers to runs."""

    cpu_millis: Int = 0
    memory_bytes: Int = 0
    gpus: tuple[Gpu, ...] = ()
