"""The replay of the SEC's files: true files come out whole, others are refused with a reason that says what to do."""

import gzip
import io
import lzma
import os
import zipfile
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.local.simulation.sec_files import Period, SecFileError
from ml_assets.local.simulation.sec_ftd import read_file, replay
from ml_assets.usecases.cns_fails.contracts import CnsFail
from ml_assets.usecases.cns_fails.publication import publication_time

HEADER = "SETTLEMENT DATE|CUSIP|SYMBOL|QUANTITY (FAILS)|DESCRIPTION|PRICE"
GOOD = ("20200701|000000000|ABC|100|ABC CORP|10.50", "20200702|000000000|ABC|250|ABC CORP|.")


def write(
    folder: Path, name: str, *rows: str, header: str = HEADER, count: int | None = None, total: int | None = None
):
    """Write a file with its trailer; by default the trailer is true."""
    quantities = [row.split("|")[3] for row in rows if row.count("|") == 5]
    total = sum(int(q) for q in quantities if q.isdigit()) if total is None else total
    lines = [header, *rows, f"Trailer record count {len(rows) if count is None else count}"]
    text = "\n".join([*lines, f"Trailer total quantity of shares {total}", ""]).encode("latin-1")
    (folder / name).write_bytes(packed(name, text))
    return folder / name


def packed(name: str, text: bytes, when: tuple[int, ...] = (2020, 8, 1, 1, 0, 0)) -> bytes:
    """A text as a file of this name holds it."""
    ending = name.lower().rpartition(".")[2]
    if ending == "zip":
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(name[:-4] + ".txt", when), text)
        return held.getvalue()
    return {"xz": lzma.compress, "gz": gzip.compress}.get(ending, lambda plain: plain)(text)


def events(folder: Path) -> list[dict]:
    return [msgspec.json.decode(message.value) for message in replay(folder).messages()]


def test_rows_become_events_known_when_their_file_was_published(tmp_path):
    write(tmp_path, "cnsfails202007a.txt.xz", *GOOD)
    messages = list(replay(tmp_path).messages())
    first, second = (msgspec.json.decode(message.value, type=CnsFail) for message in messages)
    assert (first.symbol, first.quantity, first.price) == ("ABC", 100, 10.5)
    assert first.settlement_date == date(2020, 7, 1)
    assert second.price is None
    assert {m.timestamp_ms for m in messages} == {int(datetime(2020, 7, 31, 23, tzinfo=UTC).timestamp() * 1000)}


@pytest.mark.parametrize(
    ("day", "published"),
    [
        (date(2020, 7, 14), date(2020, 7, 31)),
        (date(2020, 7, 15), date(2020, 8, 15)),
        (date(2020, 12, 31), date(2021, 1, 15)),
        (date(2021, 2, 1), date(2021, 2, 28)),
    ],
)
def test_first_halves_are_published_at_the_months_end_and_second_halves_in_the_middle_of_the_next(day, published):
    assert publication_time(day).date() == published


def test_files_are_played_in_order_of_publication_and_gaps_are_named(tmp_path):
    write(tmp_path, "cnsfails202008b.txt", "20200817|0|ABC|1|ABC|1")
    write(tmp_path, "cnsfails202007a.txt.xz", *GOOD)
    replayed = replay(tmp_path)
    assert [str(period) for period in replayed.periods] == ["2020-07a", "2020-08b"]
    assert replayed.gaps == ["2020-07b", "2020-08a"]
    times = [message.timestamp_ms for message in replayed.messages()]
    assert times == sorted(times)
    assert replayed.message_count == len(times) == 3


def test_until_leaves_out_what_was_published_later(tmp_path):
    write(tmp_path, "cnsfails202007a.txt", *GOOD)
    write(tmp_path, "cnsfails202008a.txt", "20200803|0|ABC|1|ABC|1")
    assert replay(tmp_path, until=date(2020, 8, 30)).periods == [Period(2020, 7, "a")]


REFUSED = {
    "truncated archive": (lambda p: p.write_bytes(p.read_bytes()[:-20]), "is truncated or damaged"),
    "no trailer": (
        lambda p: p.write_bytes(lzma.compress("\n".join([HEADER, *GOOD]).encode())),
        "trailer lines are missing",
    ),
    "empty": (lambda p: p.write_bytes(lzma.compress(b"")), "lacks SETTLEMENT DATE"),
    "wrong count": (lambda p: write(p.parent, p.name, *GOOD, count=3), "counts 3 records, the file has 2"),
    "wrong total": (lambda p: write(p.parent, p.name, *GOOD, total=1), "total quantity is 1, that of the rows 350"),
    "unknown column": (lambda p: write(p.parent, p.name, *GOOD, header=HEADER + "|NOTE"), "has unknown NOTE"),
    "missing column": (lambda p: write(p.parent, p.name, *GOOD, header=HEADER.replace("|PRICE", "")), "lacks PRICE"),
    "another half-month": (
        lambda p: write(p.parent, p.name, "20200801|0|A|1|A|1"),
        "20200801 does not lie in 2020-07a",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_not_true_is_refused_and_the_others_are_played(tmp_path, case):
    spoil, reason = REFUSED[case]
    spoil(write(tmp_path, "cnsfails202007a.txt.xz", *GOOD))
    write(tmp_path, "cnsfails202006b.txt.xz", "20200615|0|ABC|1|ABC|1")
    write(tmp_path, "cnsfails202007b.txt.xz", "20200715|0|ABC|1|ABC|1")
    replayed = replay(tmp_path)
    assert reason in replayed.refused["cnsfails202007a.txt.xz"]
    assert str(tmp_path / "cnsfails202007a.txt.xz") in replayed.refused["cnsfails202007a.txt.xz"], "it says where"
    assert len(list(replayed.messages())) == 2
    assert replayed.gaps == ["2020-07a"], "its dates are unknown"


def test_a_bad_row_is_sent_on_for_the_contract_to_refuse_and_the_good_ones_beside_it_are_kept(tmp_path):
    bad = ("20200701|0|DEF|many|DEF CORP|1", "20200799|0|GHI|5|GHI|1", "no row at all", "20200701|0|JKL|7|JKL|cheap")
    write(tmp_path, "cnsfails202007a.txt", *GOOD, *bad, total=350)
    decoder = msgspec.json.Decoder(CnsFail)
    good, refused = [], []
    for message in replay(tmp_path).messages():
        try:
            good.append(decoder.decode(message.value).quantity)
        except msgspec.ValidationError:
            refused.append(message.value.decode())
    assert good == [100, 250]
    assert len(refused) == 4
    assert "no row at all" in "".join(refused)


@pytest.mark.parametrize(
    "name",
    [
        "cnsfails202007a.zip", "cnsfails202007a.txt", "cnsfails202007a.TXT", "CNSFAILS202007A.ZIP",
        "cnsfails202007a.txt.gz", "cnsfails202007a.txt.xz", "CNSfails202007a.Txt.XZ",
        "cnsfails202007a_0.zip", "cnsfails202007a.txt.zip",
    ],
)  # fmt: skip
def test_a_file_is_taken_as_the_sec_hands_it_out(tmp_path, name):
    """Guards the README's 'download, keep their names': zips were refused, and .TXT skipped without a word."""
    write(tmp_path, name, *GOOD)
    replayed = replay(tmp_path)
    assert not replayed.refused
    assert [str(period) for period in replayed.periods] == ["2020-07a"]
    assert [event["quantity"] for event in events(tmp_path)] == [100, 250]


QUARTER = ("20080701|000000000|ABC|100|ABC CORP|10.50", "20080930|000000000|ABC|250|ABC CORP|.")


@pytest.mark.parametrize("trailer", [True, False])
def test_a_quarter_of_the_time_before_half_months_is_taken(tmp_path, trailer):
    path = write(tmp_path, "cnsp_sec_fails_2008q3.txt", *QUARTER)
    if not trailer:
        path.write_text("\n".join(path.read_text().splitlines()[:-2]))
    replayed = replay(tmp_path)
    (edition,) = replayed.editions
    assert edition.published == publication_time(date(2008, 8, 1)) == datetime(2008, 11, 30, 23, tzinfo=UTC)
    assert replayed.message_count == 2


def test_between_quarters_and_half_months_no_gap_is_seen_and_a_real_one_is(tmp_path):
    write(tmp_path, "cnsp_sec_fails_2009q1.txt", "20090302|0|ABC|1|ABC|1")
    write(tmp_path, "cnsfails200907b.txt", "20090716|0|ABC|1|ABC|1")
    assert replay(tmp_path).gaps == ["2009q2", "2009-07a"]


def plain(*rows: str, header: str = HEADER, total: int = 100) -> str:
    """The text of a file."""
    trailer = [f"Trailer record count {len(rows)}", f"Trailer total quantity of shares {total}"]
    return "\n".join([header, *rows, *trailer, ""])


ROW = "20200701|000000000|ABC|100|ABC CORP|10.50"
WRITTEN = {
    "CRLF": plain(ROW).replace("\n", "\r\n").encode(),
    "CR": plain(ROW).replace("\n", "\r").encode(),
    "a byte-order mark": plain(ROW).encode("utf-8-sig"),
    "UTF-16": plain(ROW).encode("utf-16"),
    "columns in another order": plain(
        "ABC|20200701|000000000|10.50|100|ABC CORP",
        header="SYMBOL|SETTLEMENT DATE|CUSIP|PRICE|QUANTITY (FAILS)|DESCRIPTION",
    ).encode(),
    "small letters and spaces": plain(ROW, header=HEADER.title().replace(" D", "  D").replace("|P", " |P")).encode(),
    "a bar at the end": plain(ROW + "|", header=HEADER + "|").encode(),
    "dates with dashes": plain(ROW.replace("20200701", "2020-07-01")).encode(),
    "a trailer with a colon": plain(ROW).replace("count ", "count: ").encode(),
    "no line break at the end": plain(ROW).rstrip().encode(),
}  # fmt: skip


@pytest.mark.parametrize("how", WRITTEN)
def test_a_file_is_read_however_it_is_written(tmp_path, how):
    (tmp_path / "cnsfails202007a.txt").write_bytes(WRITTEN[how])
    replayed = replay(tmp_path)
    assert not replayed.refused
    ((event),) = events(tmp_path)
    assert (event["symbol"], event["quantity"], event["price"], event["description"]) == ("ABC", 100, 10.5, "ABC CORP")


def test_a_bar_in_a_description_does_not_lose_the_row(tmp_path):
    write(tmp_path, "cnsfails202007a.txt", "20200701|0|ABC|100|ABC|CORP|10.50", total=100)
    assert events(tmp_path)[0]["description"] == "ABC|CORP"


def test_what_is_in_the_folder_and_not_taken_is_named_with_why(tmp_path):
    """Guards a folder of which one file was played and the others were passed over in silence."""
    write(tmp_path, "cnsfails202007a.zip", *GOOD)
    (tmp_path / "cnsfails202007b.zip").write_bytes(packed("x.zip", b"")[:20])
    (tmp_path / "cnsfails202008a.zip").write_bytes(b"<html>not found</html>")
    (tmp_path / "notes.pdf").write_bytes(b"")
    (tmp_path / "cnsfails202008b.zip").symlink_to(tmp_path / "nowhere")
    (tmp_path / "older").mkdir()
    (tmp_path / "SOURCE.txt").write_text("where from")
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        archive.writestr("one.txt", "")
        archive.writestr("two.txt", "")
    (tmp_path / "cnsfails202009a.zip").write_bytes(many.getvalue())
    replayed = replay(tmp_path)
    assert replayed.message_count == 2
    says = {
        "cnsfails202007b.zip": "truncated or damaged", "cnsfails202008a.zip": "is no zip archive",
        "cnsfails202008b.zip": "its link leads nowhere", "cnsfails202009a.zip": "holds one.txt, two.txt",
        "notes.pdf": "the name is not", "older": "the name is not",
    }  # fmt: skip
    assert replayed.refused.keys() == says.keys()
    assert all(why in replayed.refused[name] for name, why in says.items())


def test_a_row_has_the_same_id_wherever_it_stands(tmp_path):
    """Guards ids by line: of a file with one row put in, every later row was another event, and one was lost."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    write(one, "cnsfails202007a.txt", *GOOD)
    write(other, "cnsfails202007a.zip", "20200701|0|AAA|7|AAA|1", *GOOD, GOOD[0])
    ids = [event["event_id"] for event in events(other)]
    assert len(set(ids)) == 4, "two rows that are equal are two"
    assert [event["event_id"] for event in events(one)] == ids[1:3]


def test_a_corrected_file_is_known_from_its_own_publication(tmp_path):
    write(tmp_path, "cnsfails202007a.txt", *GOOD)
    text = plain(GOOD[0], total=100).encode()
    (tmp_path / "cnsfails202007a_0.zip").write_bytes(packed("c.zip", text, (2020, 9, 10, 12, 0, 0)))
    replayed = replay(tmp_path)
    assert [edition.published.date() for edition in replayed.editions] == [date(2020, 7, 31), date(2020, 9, 10)]
    assert replayed.message_count == len({event["event_id"] for event in events(tmp_path)}) == 3
    (tmp_path / "cnsfails202007a_0.zip").write_bytes(packed("c.zip", text, (2020, 7, 1, 12, 0, 0)))
    assert "--corrected-on" in replay(tmp_path).refused["cnsfails202007a_0.zip"]
    corrected = replay(tmp_path, corrected_on=date(2020, 9, 1))
    assert {edition.published.date() for edition in corrected.editions} == {date(2020, 9, 1)}
    assert "a correction is later" in replay(tmp_path, corrected_on=date(2020, 7, 1)).refused["cnsfails202007a.txt"]


@pytest.mark.parametrize("name", ["cnsfails202013a.txt", "cnsfails202007c.txt", "cnsfails2020-07a.txt.xz"])
def test_a_name_that_is_no_half_month_is_refused_and_the_others_are_played(tmp_path, name):
    write(tmp_path, name, *GOOD)
    write(tmp_path, "cnsfails202007a.txt", *GOOD)
    replayed = replay(tmp_path)
    assert "the name is not cnsfailsYYYYMM" in replayed.refused[name]
    assert replayed.message_count == 2


def test_a_half_month_that_is_there_twice_is_played_once(tmp_path):
    write(tmp_path, "cnsfails202007a.txt", *GOOD)
    write(tmp_path, "cnsfails202007a.txt.xz", *GOOD)
    replayed = replay(tmp_path)
    assert "2020-07a is there already" in replayed.refused["cnsfails202007a.txt.xz"]
    assert replayed.message_count == 2


def test_a_missing_folder_and_an_empty_one_say_what_to_do(tmp_path):
    with pytest.raises(SecFileError, match="is not a folder; give the folder with the SEC's"):
        replay(tmp_path / "nowhere")
    with pytest.raises(SecFileError, match=r"download them from sec\.gov"):
        replay(tmp_path)


SYMBOLS = st.text("ABCDEFGH", min_size=1, max_size=4)
ROWS = st.lists(
    st.tuples(st.integers(1, 14), SYMBOLS, st.integers(0, 10**9), st.sampled_from(["1.25", "."])), max_size=30
)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_every_row_comes_out_once(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    write(folder, "cnsfails202007a.txt.xz", *(f"202007{d:02}|0|{s}|{q}|NAME|{p}" for d, s, q, p in rows))
    found = Counter((e["settlement_date"], e["symbol"], e["quantity"]) for e in events(folder))
    assert found == Counter((f"2020-07-{d:02}", s, q) for d, s, q, _ in rows)


def data_folder() -> Path:
    """The real files, if this machine has them."""
    beside = Path(__file__).parents[4] / "shared" / "data" / "sec_ftd"
    folder = Path(os.environ.get("ML_ASSETS_SEC_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the SEC's files are not here; set ML_ASSETS_SEC_DATA to a folder of them")
    return folder


def test_the_real_files_are_true_and_say_so():
    folder = data_folder()
    path = sorted(folder.glob("cnsfails*.txt.xz"))[0]
    rows = list(read_file(path))
    assert len(rows) > 10_000
    good = sum(1 for _, fields in rows if len(fields) == 6)
    assert good == len(rows)
