"""Which table and which columns are chosen, in tables as people have them."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.errors import InputError, ParamsError
from flame_core.project.columns import caption_field, choose_columns, lists_addresses, tables_among

PICTURES = [f"sub/{name}.jpg" for name in "abcdefgh"]


def write_csv(path, names, rows, delimiter=",", encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([names, *rows])


def test_a_line_that_is_broken_hides_no_table(tmp_path):
    lines = [json.dumps({"file": name, "text": "a small bird"}) for name in PICTURES]
    (tmp_path / "t.jsonl").write_text("\n".join([lines[0], '{"file": ', *lines[1:]]))
    assert chosen(tmp_path, "t.jsonl") == ("file", "text")


def test_conversations_are_no_captions(tmp_path):
    said = [{"from": "human", "value": "What is in it?"}, {"from": "gpt", "value": "a small bird"}]
    rows = [{"file": name, "conversations": said} for name in PICTURES]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="not clear"):
        chosen(tmp_path, "t.jsonl")


def chosen(folder, table, **named):
    found = choose_columns([folder / table], folder, PICTURES, **named)
    return found and (found.image, found.caption)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("names", "caption"),
    [
        (["file", "caption", "note"], "caption"),
        (["note", "file", "what is seen"], "what is seen"),
        (["id", "file", "Description"], "Description"),
    ],
)
def test_pictures_by_their_names_and_captions_by_name_or_words(tmp_path, delimiter, names, caption):
    rows = [
        [{"file": name, "id": i, "note": "x"}.get(column, "a small bird") for column in names]
        for i, name in enumerate(PICTURES)
    ]
    write_csv(tmp_path / "t.csv", names, rows, delimiter)
    assert chosen(tmp_path, "t.csv") == ("file", caption)


def test_the_table_that_names_the_most_pictures_wins(tmp_path):
    write_csv(tmp_path / "few.csv", ["a", "text"], [["sub/a.jpg", "one two"], *[["no.jpg", "x y"]] * 5])
    write_csv(tmp_path / "many.csv", ["b", "text"], [[name, "one two"] for name in PICTURES])
    found = choose_columns([tmp_path / "few.csv", tmp_path / "many.csv"], tmp_path, PICTURES)
    assert found and found.table.name == "many.csv"


def test_jsonl_and_parquet_with_names_or_pictures_in_them(tmp_path):
    lines = [json.dumps({"path": name, "captions": {"en": ["a bird"], "de": ["ein Vogel"]}}) for name in PICTURES]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    assert chosen(tmp_path, "t.jsonl") == ("path", "captions")
    content = [{"bytes": b"\xff\xd8" + bytes(200), "path": None} for _ in PICTURES]
    pq.write_table(pa.table({"img": content, "text": ["a bird"] * 8, "n": list(range(8))}), tmp_path / "t.parquet")
    assert chosen(tmp_path, "t.parquet") == ("img", "text")


def test_another_encoding_is_recognised(tmp_path):
    write_csv(
        tmp_path / "t.csv", ["image", "caption"], [[name, "ein grüner Vogel"] for name in PICTURES], encoding="cp1252"
    )
    found = choose_columns([tmp_path / "t.csv"], tmp_path, PICTURES)
    assert found and (found.encoding, found.mixed) == ("cp1252", 0)


def test_lines_of_two_encodings_are_counted(tmp_path):
    encodings = ["utf-8" if number % 4 == 0 else "cp1252" for number in range(len(PICTURES))]
    rows = [f"{name},ein grüner Vogel\n".encode(each) for name, each in zip(PICTURES, encodings, strict=True)]
    (tmp_path / "t.csv").write_bytes(b"image,caption\n" + b"".join(rows))
    found = choose_columns([tmp_path / "t.csv"], tmp_path, PICTURES)
    assert found and (found.encoding, found.mixed) == ("cp1252", encodings.count("utf-8"))


@pytest.mark.parametrize("text", ["两只狗在路上打架。", "二匹の犬が道で遊んでいる。", "สุนัขสองตัวเล่นกัน"])
def test_captions_without_spaces_are_texts(tmp_path, text):
    write_csv(tmp_path / "t.csv", ["image", "seen", "by"], [[name, text, "Ann Lee"] for name in PICTURES])
    assert chosen(tmp_path, "t.csv") == ("image", "seen")
    both = [[name, "two small dogs are playing on a dusty road", text] for name in PICTURES]
    write_csv(tmp_path / "u.csv", ["image", "seen", "seen too"], both)
    found = choose_columns([tmp_path / "u.csv"], tmp_path, PICTURES)
    assert found and (found.caption, found.unread) == ("seen", ("seen too",))


def test_what_a_person_names_counts(tmp_path):
    write_csv(tmp_path / "t.csv", ["file", "caption", "poem"], [[name, "a bird", "o bird"] for name in PICTURES])
    assert chosen(tmp_path, "t.csv", caption="poem") == ("file", "poem")
    with pytest.raises(
        ParamsError, match=r"--caption-column: .*t.csv has no column 'verse'; it has file, caption, poem"
    ):
        chosen(tmp_path, "t.csv", caption="verse")
    with pytest.raises(ParamsError, match=r"--image-column: .* has no column 'picture'"):
        chosen(tmp_path, "t.csv", image="picture")


def test_further_columns_of_texts_are_named_unless_the_source_reads_them(tmp_path):
    names = ["file", "caption", "caption_de", "title", "width"]
    write_csv(tmp_path / "t.csv", names, [[name, "a bird", "ein Vogel", "My bird", "640"] for name in PICTURES])
    found = choose_columns([tmp_path / "t.csv"], tmp_path, PICTURES)
    assert found and (found.caption, found.unread) == ("caption", ("caption_de",))


def test_a_list_of_addresses_is_known_with_a_header_and_without(tmp_path):
    rows = [["a small bird", f"http://x.org/{number}.jpg"] for number in range(4)]
    write_csv(tmp_path / "names.csv", ["file", "caption", "homepage"], [[n, "a bird", ""] for n in PICTURES])
    write_csv(tmp_path / "bare.tsv", rows[0], rows[1:], delimiter="\t")
    write_csv(tmp_path / "list.csv", ["caption", "url"], rows)
    write_csv(tmp_path / "both.csv", ["file_name", "flickr_url"], [[n, f"http://x.org/{n}"] for n in PICTURES])
    assert lists_addresses([tmp_path / "names.csv", tmp_path / "both.csv"]) is None
    assert lists_addresses([tmp_path / "names.csv", tmp_path / "bare.tsv"]) == tmp_path / "bare.tsv"
    assert lists_addresses([tmp_path / "list.csv"]) == tmp_path / "list.csv"


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (["{}", 'a small, "red" bird'], ("image", "caption")),
        (["a small, red bird", "{}#0"], ("caption", "image")),
        (["7", "{}", "a small bird"], ("column1", "image", "column3")),
    ],
)
def test_columns_of_a_table_without_a_header_get_names(tmp_path, delimiter, row, columns):
    rows = [[cell.format(name) for cell in row] for name in PICTURES]
    write_csv(tmp_path / "bare.csv", rows[0], rows[1:], delimiter)
    found = choose_columns([tmp_path / "bare.csv"], tmp_path, PICTURES)
    caption = columns[max(range(len(row)), key=lambda place: len(row[place]))]
    assert (found.headless, found.image, found.caption, found.delimiter) == (columns, "image", caption, delimiter)


def test_a_first_line_that_names_a_missing_picture_is_no_header(tmp_path):
    (tmp_path / "t.token").write_text(
        "gone.jpg#0\ta bird, lost\n" + "".join(f"{name}#0\ta bird\n" for name in PICTURES)
    )
    found = choose_columns([tmp_path / "t.token"], tmp_path, PICTURES)
    assert found and (found.headless, found.delimiter) == (("image", "caption"), "\t")


def test_a_caption_that_holds_the_delimiter_makes_no_column(tmp_path):
    lines = [f"{PICTURES[0]},a bird, flying\n", *(f"{name},a bird\n" for name in PICTURES)]
    (tmp_path / "t.txt").write_text("".join(lines))
    found = choose_columns([tmp_path / "t.txt"], tmp_path, PICTURES)
    assert found and found.headless == ("image", "caption")


def test_dates_are_no_captions(tmp_path):
    write_csv(tmp_path / "t.csv", ["file", "taken"], [[name, "2013-11-14 17:02:52"] for name in PICTURES])
    with pytest.raises(InputError, match="not clear"):
        chosen(tmp_path, "t.csv")


def test_a_text_that_mentions_a_picture_is_no_table(tmp_path):
    (tmp_path / "README.txt").write_text(f"{PICTURES[0]}, {PICTURES[1]} show birds\nThe others do not\n, either\n")
    assert choose_columns([tmp_path / "README.txt"], tmp_path, PICTURES) is None


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["test.csv", "train.csv", "val.csv"], "train.csv"),
        (["captions_val2017.csv", "captions_train2017.csv"], "captions_train2017.csv"),
        (["Flickr8k.lemma.csv", "Flickr8k.token.csv"], "Flickr8k.token.csv"),
        (["attribution.csv", "test.csv", "z.csv"], "z.csv"),
    ],
)
def test_of_several_tables_that_for_training_comes_first_and_the_others_are_named(tmp_path, names, first):
    for name in names:
        write_csv(tmp_path / name, ["file", "caption"], [[picture, "a bird"] for picture in PICTURES])
    found = choose_columns([tmp_path / name for name in names], tmp_path, PICTURES)
    assert found and found.table.name == first
    assert sorted(path.name for path in found.others) == sorted({*names} - {first})


def test_a_table_with_captions_comes_before_one_that_only_names_pictures(tmp_path):
    write_csv(tmp_path / "labels.csv", ["file", "label"], [[name, "bird"] for name in PICTURES])
    write_csv(tmp_path / "z.csv", ["file", "caption"], [[name, "a bird"] for name in [*PICTURES, "gone.jpg"]])
    found = choose_columns([tmp_path / "labels.csv", tmp_path / "z.csv"], tmp_path, PICTURES)
    assert found and (found.table.name, found.others) == ("z.csv", ())


def test_captions_by_name_may_have_fields(tmp_path):
    document = {name: {"short": "a bird", "long": "a bird on a twig", "width": 3} for name in PICTURES}
    (tmp_path / "t.json").write_text(json.dumps(document))
    assert chosen(tmp_path, "t.json", caption="short") == ("image", "short")
    assert chosen(tmp_path, "t.json") == ("image", "long")


def test_a_document_that_mentions_a_picture_is_no_table(tmp_path):
    (tmp_path / "metadata.json").write_text(json.dumps({"name": "my birds", "cover": PICTURES[0]}))
    assert chosen(tmp_path, "metadata.json") is None


def test_a_table_without_captions_is_told(tmp_path):
    write_csv(tmp_path / "t.csv", ["file", "width"], [[name, "640"] for name in PICTURES])
    with pytest.raises(InputError, match=r"captions is not clear \(width\): name it with --caption-column"):
        chosen(tmp_path, "t.csv")


def test_a_table_of_other_pictures_is_none(tmp_path):
    write_csv(tmp_path / "t.csv", ["file", "caption"], [["z.jpg", "a bird"]])
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "broken.parquet").write_text("no")
    assert choose_columns(tables_among(tmp_path, ["t.csv", "empty.csv", "broken.parquet"]), tmp_path, PICTURES) is None


def test_tables_in_the_folder_come_before_those_beside_it(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "beside.tsv").touch()
    assert tables_among(tmp_path / "pictures", ["a.jpg"]) == [tmp_path / "beside.tsv"]
    inside = tables_among(tmp_path / "pictures", ["deep/b.csv", "a.jpg", "c.csv"])
    assert [path.name for path in inside] == ["c.csv", "b.csv"]


def test_the_field_of_captions_in_json():
    assert caption_field([{"width": 3, "alt": "a small bird"}, {"url": "http://x"}]) == "alt"
    assert caption_field([{"width": 3, "url": "http://x"}]) is None
