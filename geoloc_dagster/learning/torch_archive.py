"""What a file of others' weights, saved by torch, asks for, looked at before torch opens it; and what came out of it.

torch executes nothing of such a file, but does as it says: builds byte arrays of any length, tensors without memory, views that
are a billion times as large as what they show. A state dict needs none of that.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, device, strided

from geoloc_dagster.errors import UnsafeFileError
from geoloc_dagster.guards import DISTRUST, inside

_NEEDED = re.compile(
    r"collections (OrderedDict|defaultdict)|__builtin__ dict|_codecs encode|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch (\w+Storage|Size|device|(b?float|complex|u?int|bool)\w*)|torch\.storage (Typed|Untyped)Storage"
)


def check_archive(path: Path) -> None:
    """Look at the archive that torch saves: at what its members claim, and at what its pickle asks for.

    Raises:
        ValueError: it is no such archive, or asks for something that a state dict does not need.
        UnsafeFileError: its members lie elsewhere, or claim more than the file holds.
    """
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                inside(path, member.filename)
            if any(member.compress_type != zipfile.ZIP_STORED for member in members) or sum(m.file_size for m in members) > size:
                raise UnsafeFileError(f"{path} has {size:,} bytes and members that claim to hold more", DISTRUST)
            pickled = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
            if len(pickled) != 1:
                raise ValueError("it is no archive that torch.save writes")
            content = archive.read(pickled[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    strange = sorted(name for name in _asked_for(content) if not _NEEDED.fullmatch(name))
    if strange:
        raise ValueError(f"it asks for {', '.join(strange[:3])}")


def _asked_for(content: bytes) -> set[str]:
    """Module and name of everything that a pickle imports; nothing is executed."""
    found: set[str] = set()
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            found.add(str(argument))
        elif opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX") or opcode.name.startswith("EXT"):
            found.add(opcode.name)
    return found


def check_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise UnsafeFileError where a tensor is not laid out plainly in memory, or shows more than the file holds."""
    size = path.stat().st_size
    for name, tensor in state.items():
        plain = tensor.layout == strided and tensor.device == device("cpu") and not tensor.is_quantized
        if not plain or tensor.numel() * tensor.element_size() > size:
            raise UnsafeFileError(f"{path} has {size:,} bytes, and a tensor {name[:80]} of shape {tuple(tensor.shape)}", DISTRUST)
