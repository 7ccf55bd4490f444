"""Settings of the device mesh."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices as a (data, fsdp, tensor, expert) grid. One of the sizes may be -1: it covers all remaining devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    expert: int = 1  # of the experts of a model that has some; for other weights these devices are like those of `data`
    cpu_devices: int = 0  # virtual devices to split a CPU into; 0 = JAX's default, one. No effect on GPU and TPU
    rules: dict[str, str] = dataclasses.field(default_factory=dict)  # logical axis -> "fsdp", "data,fsdp" or ""
    max_replicated_gib: float = 0.25  # largest parameter, in GiB, that may be replicated where fsdp or tensor could shard it
