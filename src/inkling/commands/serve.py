"""`inkling serve`: runs as a service."""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from inkling import machine
from inkling.commands._keys import DEFAULT_KEYS
from inkling.config import Bytes, CommandSettings, Duration, Field, Positional
from inkling.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from inkling.serve.metrics import Metrics
    from inkling.serve.service import Served, Service

_DRAIN_CHECK_S = 0.05


class Settings(CommandSettings):
    """Serve runs to every OpenAI client, with a page to talk to them at /.

    Text that a request gets depends on its prompt, its settings and its seed alone, never on other requests. With keys
    (`inkling keys create`) every route but the page and /health needs one; without any, only this machine is served.

    Example: inkling serve runs/notes
    Example: inkling serve runs/notes runs/notes-int4 --host 0.0.0.0 --port 8000
    """

    runs: Positional[list[Path]]
    """Run directories, each served under its name."""
    adapters: list[Path] = Field([])
    """Adapters of these runs, each served under its name beside its run: folders in PEFT's format, or runs tuned with
    --adapter lora. They share the run's memory and its steps."""
    host: str = "127.0.0.1"
    """Address to listen on; one that others reach needs keys, or --insecure."""
    port: int = Field(8000, ge=0, le=65535)
    """Port; 0 takes a free one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the weights. auto: bf16 where the hardware has it and the model is not quantized."""
    max_sequences: int = Field(32, ge=1, le=1024)
    """Completions computed side by side."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of the models. Default: one less than there are cores, which the network and its clients need."""
    max_queue: int = Field(64, ge=0, le=100_000)
    """Completions that may wait; requests beyond get status 503."""
    kv_memory: Bytes | None = None
    """For keys and values, such as 1GB. Default: all --max-sequences at full context, a quarter of the free memory at
    most."""
    timeout: Duration = 600.0
    """Longest time of a request."""
    drain: Duration = 30.0
    """After SIGTERM: how long open requests may take before the service ends."""
    keys: Path = DEFAULT_KEYS
    """File of API keys."""
    log: Literal["none", "json"] = "none"
    """json: one line for each request on standard error, with its id, status, seconds and tokens, without any text."""
    insecure: bool = False
    """Serve everybody who reaches the address, without keys."""


def run(settings: Settings) -> None:
    """Load, listen, serve until told to stop."""
    try:
        import uvicorn

        from inkling.serve.app import build_app
    except ImportError:
        raise MissingExtraError("fastapi and uvicorn", "serve", "inkling serve") from None
    import torch

    started_s = time.perf_counter()
    torch.set_num_threads(settings.threads or max(1, machine.usable_cores() - 1))
    service = build_service(settings)
    listening = listen(settings)
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        build_app(service),
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=1 << 16,
    )
    server = uvicorn.Server(config)
    for name, one in service.served.items():
        if one.worker.engine.native is None:
            print(f"{name}: no compiled step, torch computes it ({one.worker.engine.why_not_native})", file=sys.stderr)
    _drain_first(server, service, float(settings.drain))
    names = ", ".join(service.served)
    who = "with a key" if service.keys is not None else "without a key"
    print(
        f"serving {names} at http://{settings.host}:{port} ({who}), ready after {time.perf_counter() - started_s:.1f} s"
    )
    sys.stdout.flush()
    server.run(sockets=[listening])


def listen(settings: Settings) -> socket.socket:
    """A socket on the address. Raises ConfigError in one line when it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); try --port") from None
    return listening


def build_service(settings: Settings) -> Service:
    """Models, engines and keys. Raises ConfigError for an address that would be open to all."""
    from inkling.serve.keys import KeyStore
    from inkling.serve.metrics import Metrics
    from inkling.serve.service import Service, ServiceLimits

    store = KeyStore(settings.keys)
    has_keys = any(key.revoked_s is None for key in store.list())
    if not has_keys and not settings.insecure and not _is_loopback(settings.host):
        raise ConfigError(
            f"{settings.host} can be reached by others: make a key first (inkling keys create NAME), or add --insecure"
        )
    names = [path.resolve().name for path in settings.runs]
    if len(set(names)) < len(names):
        raise ConfigError(f"two runs have the same name: {', '.join(sorted(names))}")
    metrics = Metrics()
    served = {name: load(path, name, settings, metrics) for name, path in zip(names, settings.runs, strict=True)}
    for folder in settings.adapters:
        one = add_adapter(folder, {path: served[path.resolve().name] for path in settings.runs})
        if one.name in served:
            raise ConfigError(f"there are two models of the name {one.name}: rename a folder")
        served[one.name] = one
    limits = ServiceLimits(timeout_s=float(settings.timeout))
    hosts = frozenset({"localhost", "127.0.0.1", "::1", settings.host}) if _is_loopback(settings.host) else None
    return Service(
        served, metrics, None if settings.insecure or not has_keys else store, limits, hosts, _logger(settings)
    )


def _logger(settings: Settings) -> Callable[[dict[str, Any]], None] | None:
    if settings.log == "none":
        return None
    return lambda line: print(json.dumps(line), file=sys.stderr, flush=True)


def load(path: Path, name: str, settings: Settings, metrics: Metrics) -> Served:
    """A model and its engine."""
    import torch

    from inkling import checkpoint
    from inkling.infer.blocks import BLOCK
    from inkling.infer.engine import Engine, EngineLimits
    from inkling.quantize._modules import wide_dtype
    from inkling.serve.service import Served
    from inkling.serve.worker import Worker
    from inkling.train.memory import free_bytes
    from inkling.train.run import pick_device

    device = pick_device("auto")
    stored = checkpoint.open_model(path)
    narrow = wide_dtype(device.type) if stored.quantization is None else torch.float32
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "auto": narrow}[settings.precision]
    if stored.quantization is not None and settings.precision == "bf16":
        raise ConfigError(f"{path} is quantized; its precision is its own: leave out --precision")
    model, tokenizer = checkpoint.load_model(path, device=device, dtype=None if stored.quantization else dtype)
    config = model.config
    heads, key_dim, value_dim = config.cache_shape
    block_bytes = config.num_hidden_layers * heads * (key_dim + value_dim) * BLOCK * dtype.itemsize
    wanted = settings.max_sequences * (config.max_position_embeddings // BLOCK + 1)
    affordable = (settings.kv_memory or free_bytes(device) // 4) // block_bytes
    if affordable < config.max_position_embeddings // BLOCK + 1:
        raise ConfigError(
            f"--kv-memory holds not even one full context of {path}, {block_bytes * wanted / 1e6:,.0f} MB for all"
        )
    limits = EngineLimits(settings.max_sequences, num_blocks=int(min(wanted, affordable)))
    engine = Engine(model, tokenizer, limits)
    return Served(name, model, tokenizer, Worker(engine, metrics, max_queue=settings.max_queue), int(time.time()))


def add_adapter(folder: Path, runs: dict[Path, Served]) -> Served:
    """Put an adapter beside the run that it is for. Raises ConfigError when that one is not served."""
    from inkling import checkpoint, peft
    from inkling.serve.service import Served
    from inkling.tensor_files import checksum
    from inkling.tokenizer import Tokenizer

    held = folder / checkpoint.ADAPTER_FOLDER if (folder / checkpoint.ADAPTER_FOLDER).is_dir() else folder
    name = held.resolve().parent.name if held.name == checkpoint.ADAPTER_FOLDER else held.resolve().name
    stored = peft.read_adapter(held)
    bases = {path: checksum(path / checkpoint.WEIGHTS_FILE) for path in runs}
    fitting = [path for path, found in bases.items() if not stored.base_sha256 or found == stored.base_sha256]
    if not fitting or (len(runs) > 1 and not stored.base_sha256):
        what = f"made for {stored.base or 'a base that it does not name'}"
        raise ConfigError(f"the adapter {folder} is {what}: serve that run, with no other weights, beside it")
    parent = runs[fitting[0]]
    peft.attach_stored(parent.model, stored.settings, stored.weights, name=name.replace(".", "_"))
    tokenizer = Tokenizer.load(held) if (held / "tokenizer.json").is_file() else parent.tokenizer
    if tokenizer.sha256 != parent.tokenizer.sha256:
        raise ConfigError(f"the adapter {folder} was tuned with another tokenizer than that of {fitting[0]}")
    return Served(
        name,
        parent.model,
        tokenizer,
        parent.worker,
        int(time.time()),
        adapter=name.replace(".", "_"),
        parent=parent.name,
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _drain_first(server: Any, service: Service, longest_s: float) -> None:
    """On a signal: no new requests, and the end when the open ones are through, or at a second signal."""

    def wait_and_stop(signal_number: int, frame: FrameType | None) -> None:
        deadline_s = time.monotonic() + longest_s
        while service.num_open and time.monotonic() < deadline_s:
            time.sleep(_DRAIN_CHECK_S)
        server.should_exit = True

    def handle(signal_number: int, frame: FrameType | None) -> None:
        if service.draining:
            server.should_exit = server.force_exit = True
            return
        service.draining = True
        threading.Thread(target=wait_and_stop, args=(signal_number, frame), daemon=True).start()

    server.handle_exit = handle
