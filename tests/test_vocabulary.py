"""Where the vocabularies come from: every source, in order, and what happens when none
has them.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from pathlib import Path

import pytest
import tiktoken
import tiktoken.load
import tiktoken.registry

from ratelimit.errors import EstimateWarning
from ratelimit.estimate import sources, vocabulary
from ratelimit.estimate.sources import Source, from_bpe_openai, from_cache, from_quicktok
from ratelimit.estimate.vocabulary import Vocabularies
from ratelimit.installation import install_command

ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"


@pytest.fixture(scope="module")
def file() -> bytes:
    """Rebuild tiktoken's cl100k file, the smaller of the two that a package carries."""
    pytest.importorskip("quicktok", reason="needs a vocabulary that is here without the network")
    return from_quicktok(ADDRESS, "")


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, tiktoken.Encoding]:
    """A registry of tiktoken's in which nothing is loaded yet."""
    empty: dict[str, tiktoken.Encoding] = {}
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", empty)
    return empty


def nothing(url: str, sha256: str) -> bytes:
    """Have nothing, as a source."""
    raise FileNotFoundError(2, "has none", url + sha256)


def having(data: bytes, name: str = "cl100k_base") -> Source:
    """Make a source that has the file of one encoding."""

    def source(url: str, sha256: str) -> bytes:
        return data if f"/{name}." in url else nothing(url, sha256)

    return source


def settle() -> None:
    """Wait until every download of this test has ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("vocabulary "):
            thread.join(30)


def test_quicktok_holds_the_very_file_of_tiktoken(file: bytes) -> None:
    """The file rebuilt from quicktok's passes tiktoken's own checksum, so the counts
    are tiktoken's.
    """
    found = Vocabularies([having(file)], nothing).load("cl100k_base")

    assert found is not None
    assert found.encode_ordinary("tiktoken is great!") == [83, 1609, 5963, 374, 2294, 0]


def test_quicktok_holds_o200k_as_well() -> None:
    """The default encoding comes from the package too, under tiktoken's checksum."""
    pytest.importorskip("quicktok")
    found = Vocabularies([from_quicktok], nothing).load("o200k_base")

    assert found is not None
    assert found.n_vocab == 200_019


def test_a_file_with_another_checksum_is_refused(file: bytes) -> None:
    """One flipped byte is enough: a wrong vocabulary is worse than none."""
    spoiled = file.replace(b" 9999\n", b" 9998\n", 1)

    vocabularies = Vocabularies([having(spoiled)], nothing)

    assert vocabularies.load("cl100k_base") is None
    with pytest.warns(EstimateWarning, match="not the file tiktoken expects"):
        assert vocabularies.stand_in("cl100k_base") is None


def test_a_broken_source_leaves_the_word_to_the_next(file: bytes) -> None:
    """Whatever a source raises, the one after it is asked."""

    def broken(url: str, sha256: str) -> bytes:
        raise ZeroDivisionError(url, sha256)

    assert Vocabularies([broken, having(file)], nothing).load("cl100k_base") is not None


def test_what_tiktoken_has_loaded_is_shared(
    file: bytes, registry: dict[str, tiktoken.Encoding]
) -> None:
    """An encoding the program already uses is not loaded a second time."""
    theirs = Vocabularies([having(file)], nothing).load("cl100k_base")
    assert theirs is not None
    registry["cl100k_base"] = theirs

    assert Vocabularies([], nothing).load("cl100k_base") is theirs


def test_the_cached_file_is_read(
    file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that tiktoken downloaded before serves, found under tiktoken's own name
    for it.
    """
    monkeypatch.setattr(sources, "cache_folder", lambda _environ: tmp_path)
    (tmp_path / hashlib.sha1(ADDRESS.encode()).hexdigest()).write_bytes(file)  # noqa: S324 # the name tiktoken gives it

    assert Vocabularies([from_cache], nothing).load("cl100k_base") is not None


def test_bpe_openai_holds_the_file_too(
    file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packed copy inside bpe-openai serves where that package is installed, without
    importing it.
    """
    data = tmp_path / "bpe_openai" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (data / "cl100k_base.tiktoken.gz").write_bytes(gzip.compress(file))
    monkeypatch.syspath_prepend(tmp_path)

    assert Vocabularies([from_bpe_openai], nothing).load("cl100k_base") is not None


def test_a_download_that_hangs_holds_up_nobody_for_long(file: bytes) -> None:
    """A network that swallows everything costs the first caller its patience and the
    others nothing; a late file serves.
    """
    asked = 0
    arrived = threading.Event()

    def hanging(_url: str, _sha256: str) -> bytes:
        nonlocal asked
        asked += 1
        arrived.wait(30)
        return file

    vocabularies = Vocabularies([], hanging, patience=0.01)

    assert vocabularies.load("cl100k_base") is None
    assert not vocabularies.is_ready("cl100k_base")  # a stand-in is still to be looked for
    assert vocabularies.load("cl100k_base") is None
    assert asked == 1
    with pytest.warns(EstimateWarning, match="download: under way"):
        assert vocabularies.stand_in("cl100k_base") is None
    assert vocabularies.is_ready("cl100k_base")

    arrived.set()
    settle()
    assert vocabularies.load("cl100k_base") is not None
    assert asked == 1


def test_a_quick_download_serves_its_first_caller(file: bytes) -> None:
    """Who has a network gets an exact count from the first call on."""
    assert Vocabularies([nothing], having(file), patience=30).load("cl100k_base") is not None


def test_one_warning_says_what_was_tried() -> None:
    """A missing vocabulary is named once, with what each source said and what helps."""
    vocabularies = Vocabularies([nothing], nothing, patience=30)
    assert vocabularies.load("o200k_base") is None

    with pytest.warns(EstimateWarning) as caught:
        assert [vocabularies.stand_in("o200k_base") for _ in range(3)] == [None, None, None]

    (warning,) = caught
    message = str(warning.message)
    assert "o200k_base is not here (nothing: has none; nothing: has none)" in message
    assert f"run `{install_command('vocabulary')}`" in message


@pytest.mark.logs("o200k_base is not here")
def test_where_warnings_are_errors_the_call_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Under -W error the warning is logged: a missing vocabulary breaks no call."""
    vocabularies = Vocabularies([], nothing, patience=30)
    vocabularies.load("o200k_base")

    assert vocabularies.stand_in("o200k_base") is None
    assert "o200k_base is not here" in caplog.text


@pytest.mark.filterwarnings("ignore::ratelimit.errors.EstimateWarning")
@pytest.mark.parametrize(
    "missing", ["gpt2", "r50k_base", "p50k_base", "p50k_edit", "o200k_base", "o200k_harmony"]
)
def test_the_nearest_encoding_stands_in(missing: str, file: bytes) -> None:
    """What no package carries is counted with an encoding that is here, never by size
    when there is one.
    """
    vocabularies = Vocabularies([having(file)], nothing, patience=30)

    assert vocabularies.load(missing) is None
    stand_in = vocabularies.stand_in(missing)
    assert stand_in is not None
    assert stand_in.name == "cl100k_base"


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("o200k_harmony", "o200k_base"),
        ("p50k_edit", "p50k_base"),
        ("gpt2", "r50k_base"),
        ("no such encoding", "o200k_base"),
        ("", "o200k_base"),
    ],
)
def test_names_without_a_file_of_their_own_share_one(name: str, shared: str) -> None:
    """Encodings that differ in special tokens alone share one load, and an unknown name
    is taken for the newest.
    """
    assert vocabulary.base_encoding(name) == shared


def test_threads_that_meet_load_once(file: bytes) -> None:
    """Eight threads at once pay for one load and get the same encoding."""
    asked: list[str] = []
    together = threading.Barrier(8)
    found: list[tiktoken.Encoding | None] = []

    def source(url: str, _sha256: str) -> bytes:
        asked.append(url)
        return file

    vocabularies = Vocabularies([source], nothing)

    def work() -> None:
        together.wait(30)
        found.append(vocabularies.load("cl100k_base"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(asked) == 1
    assert len(found) == 8
    assert len({id(encoding) for encoding in found}) == 1
    assert found[0] is not None


def test_no_thread_to_be_had_is_one_more_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may start no thread gets the stand-in, not an exception."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    vocabularies = Vocabularies([], nothing)

    assert vocabularies.load("o200k_base") is None
    with pytest.warns(EstimateWarning, match="can't start new thread"):
        vocabularies.stand_in("o200k_base")


def unfamiliar() -> dict[str, object]:
    """Construct an encoding without the loader known here."""
    RUN.append("constructor")
    return {}


RUN: list[str] = []


def test_another_way_of_loading_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should tiktoken load differently one day, its constructor is not run: it would
    reach for the network in a call.
    """
    import tiktoken_ext.openai_public as constructors  # type: ignore[import-untyped]

    monkeypatch.setattr(constructors, "cl100k_base", unfamiliar)

    assert Vocabularies([nothing], nothing, patience=30).load("cl100k_base") is None
    assert RUN == []


def test_a_legacy_vocabulary_has_no_remedy_that_does_not_help() -> None:
    """No package brings those of text-davinci-003 and davinci: only the download does,
    and the one warning says so.
    """
    vocabularies = Vocabularies([], nothing)
    with pytest.warns(EstimateWarning, match="p50k_base is not here") as caught:
        assert [vocabularies.stand_in("p50k_base") for _ in range(2)] == [None, None]

    assert len(caught) == 1
    assert "Let tiktoken download it once." in str(caught[0].message)
