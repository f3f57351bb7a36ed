"""The package's own code: nothing unpickles or evaluates what it reads, and files are written in few, named places."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

# -- what runs code of a file or of another process ------------------------------------------------------------------

FORBIDDEN = {
    **dict.fromkeys(("pickle.load", "pickle.loads", "pickle.Unpickler"), "runs code of its input"),
    **dict.fromkeys(
        ("dill.load", "dill.loads", "joblib.load", "shelve.open", "marshal.load", "marshal.loads"), "pickle"
    ),
    **dict.fromkeys(("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"), "makes objects of tags"),
    **dict.fromkeys(("eval", "exec", "compile", "os.system", "os.popen", "__import__"), "runs its input"),
    **dict.fromkeys(
        ("torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.package.PackageImporter"), "pickle"
    ),
    **dict.fromkeys(("shutil.unpack_archive",), "unpacks without limits"),
}
FORBIDDEN_METHODS = {
    **dict.fromkeys(("all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list"), "pickle"),
    **dict.fromkeys(("send_object_list", "recv_object_list"), "pickle"),
    **dict.fromkeys(("extractall", "extract"), "unpacks without limits"),
}


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a name or of attributes of one; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else dotted(node)


def keywords(call: ast.Call) -> dict[str, str]:
    return {each.arg: ast.unparse(each.value) for each in call.keywords if each.arg}


def dangerous(source: str) -> list[str]:
    """``line: call`` of everything that unpickles, evaluates or unpacks what it is given."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name, given = dotted(call.func), keywords(call)
        is_found = name in FORBIDDEN or (last(call.func) in FORBIDDEN_METHODS)
        is_found |= name == "torch.load" and given.get("weights_only") != "True"
        is_found |= name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False"
        is_found |= given.get("shell", "False") != "False" or given.get("trust_remote_code", "False") != "False"
        if is_found:
            found.append(f"{call.lineno}: {ast.unparse(call.func)}")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "pickle.loads(data)",
        "dist.all_gather_object(out, value)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "subprocess.run(text, shell=True)",
        "archive.extractall(folder)",
        "eval(text)",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert len(dangerous(source)) == 1


@pytest.mark.parametrize(
    "source", ["torch.load(path, weights_only=True)", "np.load(path)", "net.eval()", "yaml.compose(t)"]
)
def test_the_search_passes_over(source: str) -> None:
    assert dangerous(source) == []


def test_nothing_is_unpickled_evaluated_or_unpacked(repository: Path) -> None:
    files = [path for room in ("mambair", "scripts", "inference") for path in sorted((repository / room).rglob("*.py"))]
    assert len(files) > 100
    assert [f"{path.name}:{each}" for path in files for each in dangerous(path.read_text(encoding="utf-8"))] == []


def test_torch_compile_is_used_with_private_caches_only(repository: Path) -> None:
    used = {"torch.compile": set(), "use_private_compile_caches": set()}
    for path in (repository / "mambair").rglob("*.py"):
        for call in (
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ):
            if dotted(call.func) in used:
                used[dotted(call.func)].add(path.name)
    assert used["torch.compile"] <= used["use_private_compile_caches"] >= {"triton_scan.py"}
    assert used["torch.compile"]


# -- what reads JSON ------------------------------------------------------------------------------------------------

JSON_READERS = {
    "mambair/system/bounded_reader.py": "the reader itself: size, depth, digits, constants",
    "mambair/system/distributed.py": "messages between the processes of one training, which may hold NaN",
}


def parsers(source: str) -> list[str]:
    """``line: name`` of everything that parses JSON, or takes the functions that do."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and dotted(node) in ("json.load", "json.loads", "json.JSONDecoder"):
            found.append(f"{node.lineno}: {dotted(node)}")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("json", "simplejson"):
            found.append(f"{node.lineno}: from {node.module}")
        elif isinstance(node, ast.Import) and any(each.name == "json" and each.asname for each in node.names):
            found.append(f"{node.lineno}: import json as another name")
    return found


@pytest.mark.parametrize(
    "source",
    ["json.loads(text)", "json.load(file)", "map(json.loads, lines)", "from json import loads", "import json as j"],
)
def test_the_search_finds_parsers(source: str) -> None:
    assert len(parsers(source)) == 1 and parsers("import json\njson.dumps(x)") == []


def test_json_is_read_in_one_place(repository: Path) -> None:
    found: dict[str, list[str]] = {}
    for room in ("mambair", "scripts", "inference"):
        for path in sorted((repository / room).rglob("*.py")):
            if calls := parsers(path.read_text(encoding="utf-8")):
                found[path.relative_to(repository).as_posix()] = calls
    others = {module: calls for module, calls in found.items() if module not in JSON_READERS}
    assert others == {}, "use mambair.system.bounded_reader.parse_json or read_json"
    assert found.keys() == JSON_READERS.keys(), "JSON_READERS names a module that reads none"


# -- what writes files -----------------------------------------------------------------------------------------------

GATES = ("atomic_path", "atomic_stream", "open_to_append")  # yield or return what may be written to
WRITING_METHODS = frozenset({"write_text", "write_bytes", "touch", "symlink_to", "hardlink_to", "tofile", "savez"})
WRITING_CALLS = frozenset(
    {"np.save", "np.savez", "np.savez_compressed", "torch.save", "save_file", "logging.FileHandler", "SummaryWriter"}
    | {"shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree", "shutil.move", "lmdb.open", "os.mkfifo"}
)

# module: call -> why it needs no gate. A call that disappears has to go from here, too.
ALLOWED = {
    "mambair/system/path_gate.py": {"os.open": "the gate itself"},
    "mambair/system/console.py": {"os.open": "opens the null device, in place of a pipe that nobody reads"},
    "mambair/system/process_memory.py": {"_RESET.write_text": "a file of the kernel, /proc/self/clear_refs"},
    "mambair/data/lmdb_store.py": {"lmdb.open": "the library writes by itself, into files that the writer checked"},
    "mambair/training/writers.py": {"SummaryWriter": "TensorBoard writes by itself, into tb_logger/<name>"},
}
STREAMS = frozenset({"stream", "buffer"})  # names of files in memory, or of files that a gate opened


def writes(source: str) -> Iterator[tuple[int, str]]:
    """(line, call) of everything that opens a file for writing and takes no path from a gate."""
    tree = ast.parse(source)
    given = {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name)
        and isinstance(item.context_expr, ast.Call)
        and last(item.context_expr.func) in GATES
    }
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        operands = [call.func.value] if isinstance(call.func, ast.Attribute) else []
        if _writes(call) and not any(dotted(each) in given for each in [*operands, *call.args]):
            yield call.lineno, dotted(call.func) or ast.unparse(call.func)


def _writes(call: ast.Call) -> bool:
    name, method = dotted(call.func), last(call.func)
    if name == "os.open":
        flags = ast.unparse(call)
        return "O_RDONLY" not in flags or any(flag in flags for flag in ("O_CREAT", "O_APPEND", "O_TRUNC"))
    if method == "open" and name not in ("os.open", "lmdb.open"):
        is_function = name in ("open", "gzip.open", "bz2.open", "lzma.open", "io.open")
        mode = next((each.value for each in call.keywords if each.arg == "mode"), None)
        positional = call.args[1 if is_function else 0 :]
        mode = mode or (positional[0] if positional else None)
        return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and bool(set(mode.value) & set("wax+"))
    if method == "save" and call.args:  # Pillow's
        return isinstance(call.args[0], ast.Name | ast.BinOp) and dotted(call.args[0]) not in STREAMS | {
            "iteration",
            "done",
        }
    return method in WRITING_METHODS or name in WRITING_CALLS


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("open(path, 'w')", "open"),
        ("open(path, mode='ab')", "open"),
        ("path.open('x')", "path.open"),
        ("Path(name).write_text('')", "write_text"),
        ("folder.path.write_bytes(b'')", "folder.path.write_bytes"),
        ("os.open(path, os.O_RDWR)", "os.open"),
        ("os.open(path, flags)", "os.open"),
        ("np.save(path, x)", "np.save"),
        ("torch.save(x, path)", "torch.save"),
        ("shutil.copyfile(a, b)", "shutil.copyfile"),
        ("image.save(path)", "image.save"),
        ("with atomic_path(p) as temporary:\n    other.write_text('')", "other.write_text"),
    ],
)
def test_the_search_finds_what_writes(source: str, call: str) -> None:
    assert [found.rpartition(".")[2] for _, found in writes(source)] == [call.rpartition(".")[2]]


@pytest.mark.parametrize(
    "source",
    [
        "open(path)",
        "path.open('rb')",
        "os.open(folder, os.O_RDONLY)",
        "image.save(buffer, 'PNG')",
        "with atomic_path(p) as temporary:\n    temporary.write_text('')",
        "with atomic_path(p) as temporary:\n    torch.save(x, temporary)",
        "tarfile.open(path)",
    ],
)
def test_the_search_passes_over_what_reads_and_what_the_gate_gave(source: str) -> None:
    assert list(writes(source)) == []


def test_files_are_written_through_the_gate(repository: Path) -> None:
    found: dict[str, set[str]] = {}
    for path in sorted((repository / "mambair").rglob("*.py")):
        for line, call in writes(path.read_text(encoding="utf-8")):
            module = path.relative_to(repository).as_posix()
            found.setdefault(module, set()).add(call)
            allowed = ALLOWED.get(module, {})
            assert call in allowed, f"{module}:{line}: {call} writes a file; use mambair.system.atomic_file"
    assert found == {module: set(calls) for module, calls in ALLOWED.items()}, "ALLOWED names calls that are gone"


# -- what is promised ------------------------------------------------------------------------------------------------


def test_the_tests_of_the_promises_are_there(repository: Path) -> None:
    page = (repository / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    ours = {path.relative_to(repository).as_posix() for path in (repository / "tests/attacks").glob("test_*.py")}
    assert ours <= named and all((repository / name).is_file() for name in named)
