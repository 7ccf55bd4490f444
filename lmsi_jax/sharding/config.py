"""Settings of the device mesh."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices as a (data, fsdp, tensor) grid. One of the three sizes may be -1: it covers all remaining devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    cpu_devices: int = 0  # virtual devices to split a CPU into; 0 = JAX's default, one. No effect on GPU and TPU
    rules: dict[str, str] = dataclasses.field(default_factory=dict)  # logical axis -> "fsdp", "data,fsdp" or ""
    max_replicated_gib: float = 0.25  # largest parameter, in GiB, that may be replicated where fsdp or tensor could shard it
