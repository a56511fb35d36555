"""Label tables as people have them: every layout is known by its header, and nothing is lost or mistaken."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import pytest

from soundsight.config import DatasetConfig
from soundsight.datasets.catalogue import Catalogue, read_catalogue
from soundsight.datasets.segments import cut_windows
from soundsight.datasets.tables.layout import LAYOUTS
from soundsight.datasets.tables.reading import read_labels
from soundsight.datasets.tables.recordings import Recordings
from soundsight.errors import DatasetError
from test_catalogues import RAVEN, record


def read(root: Path, table: str, content: str | bytes | None = None, **settings: str) -> Catalogue:
    """The clips of a table, which is written first if it has content."""
    if content is not None:
        (root / table).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_catalogue(DatasetConfig(kind="table", root=str(root), table=table, **settings))


def clips(catalogue: Catalogue) -> list[tuple[str, str, float, float | None]]:
    return [(c.file, c.label, c.start_seconds, c.end_seconds) for c in catalogue.clips]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the recordings a.wav and b.wav of 40 s."""
    for name in ("a.wav", "b.wav"):
        record(tmp_path / name, 40)
    return tmp_path


# Layouts. Two clips each: an owl from 1.5 to 4 s of a.wav, a fox from 20 to 22 s of b.wav.
BOTH = [("a.wav", "owl", 1.5, 4.0), ("b.wav", "fox", 20.0, 22.0)]
PEERS = {
    "birdnet.csv": "Start (s),End (s),Scientific name,Common name,Confidence,File\n"
    "1.5,4.0,Strix aluco,owl,0.9123,/data/in/a.wav\n20.0,22.0,Vulpes vulpes,fox,0.5,/data/in/b.wav\n",
    "birdnet_selection.txt": "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
    "Common Name\tSpecies Code\tConfidence\tBegin Path\tFile Offset (s)\n"
    "1\tSpectrogram 1\t1\t1.5\t4.0\t0\t15000\towl\ttawowl1\t0.91\t/in/a.wav\t1.5\n"
    "2\tSpectrogram 1\t1\t60.0\t62.0\t0\t15000\tfox\tfox\t0.91\t/in/b.wav\t20.0\n",
    "birdnet_r.csv": "filepath,start,end,scientific_name,common_name,confidence,lat,lon,week,overlap,sensitivity,"
    "min_conf,species_list,model\n/in/a.wav,1.5,4.0,Strix aluco,owl,0.9,-1,-1,-1,0,1,0.1,,V2.4\n"
    "/in/b.wav,20,22,Vulpes vulpes,fox,0.9,-1,-1,-1,0,1,0.1,,V2.4\n",
    "birdnet_kaleidoscope.csv": "INDIR,FOLDER,IN FILE,OFFSET,DURATION,scientific_name,common_name,confidence,lat,lon,"
    "week,overlap,sensitivity\n/in,,a.wav,1.5,2.5,Strix aluco,owl,0.9,,,,,\n/in,,b.wav,20,2,Vulpes vulpes,fox,1,,,,,\n",
    "opensoundscape.csv": "file,start_time,end_time,owl,fox\na.wav,1.5,4.0,1,0\nb.wav,20.0,22.0,0.0,1.0\n",
    "opensoundscape_boxes.csv": ",audio_file,annotation_file,annotation,start_time,end_time,low_f,high_f\n"
    "0,a.wav,a.txt,owl,1.5,4.0,100,9000\n1,b.wav,b.txt,fox,20,22,,\n",
    "dcase.tsv": "filename\tonset\toffset\tevent_label\na.wav\t1.5\t4.0\towl\nb.wav\t20.0\t22.0\tfox\n",
    "desed.csv": "\tfilename\tonset\toffset\tevent_label\n0\ta.wav\t1.5\t4.0\towl\n1\tb.wav\t20.0\t22.0\tfox\n",
    "few_shot.csv": "Audiofilename,Starttime,Endtime,label\na.wav,1.5,4.0,owl\nb.wav,20,22,fox\n",
    "audioset.tsv": "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\na\t1.5\t4.0\towl\nb\t20\t22\tfox\n",
    "crowsetta.csv": "label,onset_s,offset_s,onset_sample,offset_sample,notated_path,annot_path,sequence,annotation\n"
    "owl,1.5,4.0,,,a.wav,x.csv,0,0\nfox,20,22,,,b.wav,x.csv,0,1\n",
    "kaleidoscope.csv": "INDIR,FOLDER,IN FILE,CHANNEL,OFFSET,DURATION,Fmin,Fmean,Fmax,DATE,TIME,HOUR,MANUAL ID\n"
    "C:\\in,,a.wav,0,1.5,2.5,1,2,3,2024-05-01,06:30:00,6,owl\nC:\\in,,b.wav,0,20,2,1,2,3,2024-05-01,06:30:00,6,fox\n",
    "pandas.csv": ",file,start,end,label\n0,a.wav,1.5,4.0,owl\n1,b.wav,20,22,fox\n",
    "seconds.csv": "Filename,Start (s),End (s),Species\na.wav,1.5,4.0,owl\nb.wav,20,22,fox\n",
    "milliseconds.csv": "path,onset_ms,stop_ms,class\na.wav,1500,4000,owl\nb.wav,20000,22000,fox\n",
    "lengths.csv": "file_name,start,duration,category\na.wav,1.5,2.5,owl\nb.wav,20,2,fox\n",
    "camel.csv": "fileName,startMs,endMs,className\na.wav,1500,4000,owl\nb.wav,20000,22000,fox\n",
    "clock.csv": "file,start,end,label\na.wav,00:00:01.5,0:00:04,owl\nb.wav,00:00:20,00:00:22,fox\n",
    "events.csv": "filename,onset,offset,labels\na.wav,1.5,4,owl\nb.wav,20,22,fox\n",
    "r_write_table.txt": '"file" "start" "end" "label"\n"1" "a.wav" 1.5 4 "owl"\n"2" "b.wav" 20 22 "fox"\n',
    "r_tabs.txt": '"file"\t"start"\t"end"\t"label"\n"1"\t"a.wav"\t1.5\t4\t"owl"\n"7"\t"b.wav"\t20\t22\t"fox"\n',
    "r_names.csv": '"","Begin.File","Begin.Time..s.","End.Time..s.","File.Offset..s.","Species"\n'
    '"1","a.wav",1.5,4,1.5,"owl"\n"2","b.wav",60,62,20,"fox"\n',
    "r_write_csv2.csv": '"";"file";"start";"end";"label"\n"1";"a.wav";1,5;4;"owl"\n"2";"b.wav";20;22;"fox"\n',
    "excel.csv": "sep=;\r\nfile;start;end;label;;\r\na.wav;1,5;4;owl;;\r\nb.wav;20;22;fox;;\r\n",
}


@pytest.mark.parametrize("name", PEERS)
def test_layouts_are_known_by_their_headers(root: Path, name: str) -> None:
    catalogue = read(root, name, PEERS[name])
    assert clips(catalogue) == BOTH and not catalogue.failures and not catalogue.whole_recordings
    assert catalogue.notes[0].startswith("Read as ")


def test_every_layout_has_a_title_of_its_own() -> None:
    assert len({layout.title for layout in LAYOUTS}) == len(LAYOUTS) >= 10


def test_birdnet_beside_its_recording(root: Path) -> None:
    text = "Start (s),End (s),Scientific name,Common name,Confidence\n1.5,4.0,Strix aluco,owl,0.9\n"
    assert clips(read(root, "a.BirdNET.results.csv", text)) == BOTH[:1]


def test_kaleidoscope_names_folder_and_offset(root: Path) -> None:
    for site in "AB":
        record(root / f"site{site}" / "001.wav", 5)
    header = "INDIR,OUTDIR,FOLDER,IN FILE,CHANNEL,OFFSET,DURATION,AUTO ID,MANUAL ID\n"
    rows = "D:\\bats,,siteA,001.wav,0,1.5,2.5,NoID,MYOLUC\nD:\\bats,,siteB\\,001.wav,0,2,1,NoID,MYOSEP\n"
    rows += ",,,a.wav,0,1,1,NoID,\n"
    catalogue = read(root, "id.csv", header + rows)
    assert clips(catalogue) == [("siteA/001.wav", "MYOLUC", 1.5, 4.0), ("siteB/001.wav", "MYOSEP", 2.0, 3.0)]
    assert catalogue.failures == [("a.wav", "id.csv, line 4: the label is empty")]


def test_fsd50k_has_names_without_ending_and_several_labels(root: Path) -> None:
    record(root / "FSD50K.dev_audio" / "64760.wav")
    text = 'fname,labels,mids,split\n64760,Dog,/m/0bt9lr,train\na,"Owl,Bird",/m/1,val\n'
    catalogue = read(root, "dev.csv", text)
    assert [(c.file, c.labels, c.split) for c in catalogue.clips] == [
        ("FSD50K.dev_audio/64760.wav", ("Dog",), "train"),
        ("a.wav", ("Bird", "Owl"), "val"),
    ]
    assert catalogue.multi and catalogue.labels == ["Bird", "Dog", "Owl"] and not catalogue.failures
    assert catalogue.notes[1] == "Multi-label data: 1 of 2 recordings have several classes."
    single = read(root, "dev.csv", text, labels="single")
    assert [(c.file, c.label, c.split) for c in single.clips] == [("FSD50K.dev_audio/64760.wav", "Dog", "train")]
    assert single.failures == [
        ("a", "dev.csv, line 3: the clip has several labels (Owl, Bird), but labels=single allows one")
    ]


def test_one_column_per_class(root: Path) -> None:
    text = "file,start_time,end_time,owl,fox\na.wav,0,5,TRUE,FALSE\na.wav,5,10,TRUE,TRUE\nb.wav,0,5,FALSE,FALSE\n"
    catalogue = read(root, "labels.csv", text)
    assert [(c.file, c.labels, c.start_seconds) for c in catalogue.clips] == [
        ("a.wav", ("owl",), 0.0),
        ("a.wav", ("fox", "owl"), 5.0),
    ]
    unmarked = "Rows that mark no class and are left out: 1 (annotated=complete makes them background)."
    assert unmarked in catalogue.notes and not catalogue.failures
    labels, failures = read_labels([root / "labels.csv"], Recordings(root))
    assert {file: len(found) for file, found in labels.items()} == {"a.wav": 3, "b.wav": 0} and not failures
    complete = read(root, "labels.csv", text, annotated="complete", cut="rows")
    assert [c.labels for c in complete.clips] == [("owl",), ("fox", "owl"), ()] and not complete.failures
    single = read(root, "labels.csv", text, labels="single")
    assert clips(single) == [("a.wav", "owl", 0.0, 5.0)]
    assert [reason for _, reason in single.failures] == [
        "labels.csv, line 3: the clip has several labels (owl, fox), but labels=single allows one"
    ]
    with pytest.raises(DatasetError, match="lacks the column 'label'; it has: file, start_time, end_time, owl, fox"):
        read(root, "scores.csv", "file,start_time,end_time,owl,fox\na.wav,0,5,0.93,0.02\n")


def test_settings_win_over_the_layout(root: Path) -> None:
    text = "Start (s),End (s),Scientific name,Common name,Confidence,File\n1.5,4.0,Strix aluco,Tawny Owl,0.9,a.wav\n"
    (clip,) = read(root, "b.csv", text, label_column="Scientific name", start_column="Confidence").clips
    assert (clip.label, clip.start_seconds, clip.end_seconds) == ("Strix aluco", 0.9, 4.0)
    with pytest.raises(DatasetError, match="lacks the column 'Kind'; it has: Start"):
        read(root, "b.csv", text, label_column="Kind")


@pytest.mark.parametrize(
    ("text", "strange"),
    [
        ("file,begins_at,ends_at,t0,t1,label\na.wav,x,y,1.5,4,owl\n", "t0, t1"),
        ("file,label,seconds\na.wav,owl,5\n", "seconds"),
        ("file,onset_samples,offset_samples,label\na.wav,12000,32000,owl\n", "onset_samples, offset_samples"),
        ("recording,species,x1,x2,y1,y2\na.wav,owl,1.5,4,100,900\n", "x1, x2"),
        ("Tier,Begin Time - ss.msec,End Time - ss.msec,label,file\nt,1.5,4,owl,a.wav\n", "Begin Time"),
        ("file,label,start,stop_frame\na.wav,owl,1.5,99\n", "stop_frame"),
        ("file,label,anfang (s),ende (s)\na.wav,owl,1.5,4\n", "anfang (s), ende (s)"),
        ("file,début,fin,label\na.wav,1.5,4,owl\na.wav,20,22,fox\n", "début, fin"),
        ("File Name,start (hh:mm:ss),end (hh:mm:ss),species\na.wav,00:01,00:04,owl\n", "start (hh:mm:ss), end ("),
        ("file,start_min,start_sec,end_min,end_sec,label\na.wav,1,1.5,1,4,owl\n", "start_min, end_min"),
    ],
)
def test_times_that_are_not_understood_are_refused(root: Path, text: str, strange: str) -> None:
    header = text.partition("\n")[0].replace(",", ", ")
    with pytest.raises(DatasetError) as caught:
        read(root, "t.csv", text)
    message = str(caught.value)
    assert f"look like times ({strange}" in message and f"it has: {header}." in message
    assert "start_column=NAME and end_column=NAME" in message


def test_a_date_and_a_length_are_no_times(root: Path) -> None:
    catalogue = read(root, "t.csv", "file,label,date,time,duration\na.wav,owl,2024-05-01,06:30:00,40\n")
    assert catalogue.whole_recordings and clips(catalogue) == [("a.wav", "owl", 0.0, None)]


def test_urbansound8k_as_a_table_is_refused(root: Path) -> None:
    text = "slice_file_name,fsID,start,end,salience,fold,classID,class\na.wav,1,58.5,62.5,1,1,2,dog_bark\n"
    with pytest.raises(DatasetError, match="use kind=urbansound8k"):
        read(root, "UrbanSound8K.csv", text)


# Rows


def raven(*notes: str) -> str:
    rows = (f"{k}\tS\t1\t{2 * k}\t{2 * k + 1}\t0\t8000\twren\t{note}\n" for k, note in enumerate(notes, 1))
    return f"{RAVEN}\tSpecies\tNotes\n" + "".join(rows)


@pytest.mark.parametrize(
    "notes",
    [
        ("", '"chirr, faint', "", "", ""),
        ("", '"chirr', "", 'faint"', ""),  # two marks that look like a pair of quotes around three rows
        ("", '"', "", '"loud" call', ""),
        ('5" away', "", '"quoted"', "", 'end"'),
    ],
)
def test_quotation_marks_in_notes_swallow_no_rows(root: Path, notes: tuple[str, ...]) -> None:
    catalogue = read(root, "a.txt", raven(*notes))
    assert [clip.start_seconds for clip in catalogue.clips] == [2, 4, 6, 8, 10] and not catalogue.failures


def test_two_stray_marks_in_csv_swallow_no_rows(root: Path) -> None:
    rows = ["a.wav,0,1,owl,", 'a.wav,1,2,owl,"chirr', "a.wav,2,3,owl,", 'a.wav,3,4,owl,faint"', "a.wav,4,5,owl,"]
    catalogue = read(root, "l.csv", "file,start,end,label,note\n" + "\n".join(rows) + "\n")
    assert [clip.start_seconds for clip in catalogue.clips] == [0, 1, 2, 3, 4]
    quoted = 'file,start,end,label,note\na.wav,0,1,"owl, tawny","two\nlines, of ""words"""\nb.wav,1,2,fox,\n'
    assert [clip.label for clip in read(root, "l.csv", quoted).clips] == ["owl, tawny", "fox"]


def test_surplus_fields_are_a_failure_and_not_dropped(root: Path) -> None:
    catalogue = read(root, "l.csv", "file,start,end,label\na.wav,1,5,2,5,owl\nb.wav,20,22,fox\n")
    assert clips(catalogue) == BOTH[1:]
    ((_, reason),) = catalogue.failures
    assert reason.startswith("l.csv, line 2: the row has 6 fields, but the header names 4; decimal commas need")


def test_missing_values_as_r_writes_them(root: Path) -> None:
    text = "file,start,end,label,site\na.wav,NA,NA,owl,NA\nb.wav,20,22,NA,x\nb.wav,20,22,TRUE,x\n"
    catalogue = read(root, "l.csv", text, group_column="site")
    assert clips(catalogue) == [("a.wav", "owl", 0.0, None), ("b.wav", "TRUE", 20.0, 22.0)]
    assert catalogue.clips[0].source == "a.wav"
    assert [reason for _, reason in catalogue.failures] == ["l.csv, line 3: the label 'NA' stands for a missing value"]


@pytest.mark.parametrize("text", ["file,label,start,end\na.wav,owl,,\n", "file,label,start,end\na.wav,owl,NA,NA\n"])
def test_columns_of_times_without_times_mean_whole_recordings(root: Path, text: str) -> None:
    assert read(root, "l.csv", text).whole_recordings


def test_esc10_survives_excel(tmp_path: Path) -> None:
    record(tmp_path / "audio" / "1-7-A-0.wav")
    (tmp_path / "meta").mkdir()
    text = "filename,fold,target,category,esc10,src_file,take\n1-7-A-0.wav,1,0,dog,TRUE,7,A\n"
    (tmp_path / "meta" / "esc50.csv").write_text(text)
    assert len(read_catalogue(DatasetConfig(kind="esc10", root=str(tmp_path))).clips) == 1


# Files: encodings, workbooks, several tables


def test_excel_of_western_europe(root: Path) -> None:
    record(root / "l’étang.wav")
    text = "file;label\r\na.wav;Grünspecht – Ruf\r\nl’étang.wav;Œdicnème\r\n"
    catalogue = read(root, "l.csv", text.encode("cp1252"))
    assert [c.label for c in catalogue.clips] == ["Grünspecht – Ruf", "Œdicnème"]
    assert "read as Windows code page 1252: 1; if words such as 'Grünspecht' look wrong" in catalogue.notes[-1]
    assert len(read(root, "l.csv", text).notes) == 1  # UTF-8


def workbook(path: Path, rows: list[list[object]]) -> None:
    """An .xlsx with one sheet, of the parts that Excel writes."""
    import zipfile
    from xml.sax.saxutils import escape

    def cell(value: object) -> str:
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        return "<c/>" if value is None else f"<c><v>{value}</v></c>"

    lines = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    links = "http://schemas.openxmlformats.org/package/2006/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    sheet = '<sheets><sheet name="L" sheetId="1" r:id="rId1"/></sheets>'
    types = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("[Content_Types].xml", f'<Types xmlns="{links}">{types}</Types>')
        target = f'<Relationship Id="rId1" Type="{office}/{{}}" Target="{{}}"/>'
        for name, kind, goal in (
            ("_rels/.rels", "officeDocument", "xl/workbook.xml"),
            ("xl/_rels/workbook.xml.rels", "worksheet", "worksheets/sheet1.xml"),
        ):
            file.writestr(name, f'<Relationships xmlns="{links}">{target.format(kind, goal)}</Relationships>')
        file.writestr("xl/workbook.xml", f'<workbook xmlns="{main}" xmlns:r="{office}">{sheet}</workbook>')
        file.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{main}"><sheetData>{lines}</sheetData></worksheet>'
        )


@pytest.mark.parametrize("name", ["l.xlsx", "l.csv"])  # by its content, whatever its name
def test_workbooks(root: Path, name: str) -> None:
    pytest.importorskip("python_calamine")
    workbook(
        root / name,
        [
            ["file", "start", "end", "label"],
            ["a.wav", 1.5, 4, "owl"],
            [None] * 4,
            ["b.wav", 20, 22, "fox"],
            ["", 1, 2, "x"],
        ],
    )
    catalogue = read(root, name)
    assert clips(catalogue) == BOTH
    assert [reason for _, reason in catalogue.failures] == [f"{name}, line 5: no file is named"]


def test_workbooks_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match=r"The workbook .*l.xlsx cannot be read .*; save the table as CSV"):
        read(root, "l.xlsx", b"PK\x03\x04 and no more")
    with pytest.raises(DatasetError, match=r"The workbook .*l.xls cannot be read"):
        read(root, "l.xls", b"\xd0\xcf\x11\xe0 and no more")
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(DatasetError, match=r"needs the package python-calamine; run pip install .soundsight\[tables\]"):
        read(root, "l.xlsx")


def test_an_empty_label_track_means_that_nothing_was_there(root: Path) -> None:
    (root / "b.txt").write_text("")
    (root / "a.txt").write_text("1.5\t4\towl\n")
    catalogue = read(root, "*.txt")
    assert clips(catalogue) == [*BOTH[:1], ("b.wav", "", 0.0, None)] and not catalogue.failures
    cut, _ = cut_windows(catalogue, 5.0)
    assert [c.file for c in cut.clips if c.label == "background"] == ["b.wav"] * 8 and len(cut.clips) == 9
    (root / "n.csv").write_text("file,start,end,label\na.wav,,,\nb.wav,,,\n")
    with pytest.raises(DatasetError, match="Nothing is annotated: the tables of 2 recordings, such as a.wav, hold no"):
        read(root, "n.csv")
    (root / "a.txt").write_text("")
    with pytest.raises(DatasetError, match="Nothing is annotated: the tables of 2 recordings, such as a.wav, hold no"):
        read(root, "*.txt")


def test_tables_may_differ_and_one_that_is_no_table_is_listed(root: Path) -> None:
    (root / "a.txt").write_text(f"{RAVEN}\tSpecies\n1\tS\t1\t1.5\t4\t0\t9\towl\n")
    (root / "b.selections.txt").write_text(
        f"{RAVEN}\tBegin Path\tBegin File\tFile Offset (s)\tLabel\tScore\n"
        "1\tS\t1\t20\t22\t0\t9\t/x/b.wav\tb.wav\t20\tfox\t0.9\n"
    )
    (root / "readme.txt").write_text("Recorded in May.\n")
    catalogue = read(root, "*.txt")
    assert clips(catalogue) == BOTH
    ((file, reason),) = catalogue.failures
    assert file == "readme.txt" and "lacks the column 'label'; it has: Recorded in May." in reason
    only = read(root, "*.txt", label_column="Species")
    assert clips(only) == BOTH[:1]
    assert [file for file, _ in only.failures] == ["b.selections.txt", "readme.txt"]


def test_a_pattern_takes_brackets_of_the_root_as_they_are(tmp_path: Path) -> None:
    root = tmp_path / "[2023] survey*"
    record(root / "a.wav", 5)
    (root / "a.txt").write_text("1.5\t4\towl\n")
    catalogue = read(root, "*.txt")
    assert clips(catalogue) == BOTH[:1]
    assert catalogue.name == "[2023] survey*"  # a data set is not called "*"


# Names of recordings


def test_bare_names_that_lead_to_one_file_are_ambiguous(tmp_path: Path) -> None:
    text = "file,label\nC:\\data\\siteA\\001.wav,owl\nC:\\data\\siteB\\001.wav,fox\nC:\\data\\siteA\\002.wav,owl\n"
    record(tmp_path / "here" / "001.wav")
    record(tmp_path / "here" / "002.wav")
    catalogue = read(tmp_path / "here", "l.csv", text)
    assert [c.file for c in catalogue.clips] == ["002.wav"]
    assert len(catalogue.failures) == 2 and "would both be 001.wav" in catalogue.failures[0][1]
    for site in "AB":
        record(tmp_path / "sites" / f"site{site}" / "001.wav")
    catalogue = read(tmp_path / "sites", "l.csv", text)
    assert [(c.file, c.label) for c in catalogue.clips] == [("siteA/001.wav", "owl"), ("siteB/001.wav", "fox")]
    assert len(catalogue.failures) == 1


def test_names_in_two_tables_that_lead_to_one_file_are_ambiguous(root: Path) -> None:
    (root / "1.csv").write_text("file,label\n/x/siteA/a.wav,owl\n")
    (root / "2.csv").write_text("file,label\n/x/siteB/a.wav,fox\nb.wav,fox\n")
    catalogue = read(root, "?.csv")
    assert [c.file for c in catalogue.clips] == ["b.wav"] and len(catalogue.failures) == 2


@pytest.mark.parametrize(("table", "disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_decomposed_names_and_labels(tmp_path: Path, table: str, disk: str) -> None:
    record(tmp_path / unicodedata.normalize(disk, "forêt é.wav"))
    text = unicodedata.normalize(table, "file,label\nforêt é.wav,grèbe\n") + "forêt é.WAV,grèbe\n"
    catalogue = read(tmp_path, "l.csv", text)
    assert {c.label for c in catalogue.clips} == {"grèbe"}  # composed
    assert len(catalogue.clips) == 1 and catalogue.failures[0][1].endswith("the row repeats another")


def test_a_name_without_ending_that_fits_two_files(root: Path) -> None:
    record(root / "a.flac")
    catalogue = read(root, "l.csv", "file,label\na,owl\nb,fox\n")
    assert [c.file for c in catalogue.clips] == ["b.wav"]
    assert catalogue.failures == [("a", "l.csv, line 2: the file a may be a.flac and a.wav")]


def test_a_raven_sequence_needs_its_offsets(root: Path) -> None:
    header, rows = (
        f"{RAVEN}\tBegin File\tSpecies\n",
        "1\tS\t1\t1.5\t4\t0\t9\ta.wav\towl\n2\tS\t1\t60\t62\t0\t9\tb.wav\tfox\n",
    )
    with pytest.raises(DatasetError, match=r"names several files but has no column 'File Offset \(s\)'"):
        read(root, "s.txt", header + rows)
    assert clips(read(root, "s.txt", header + rows.partition("\n")[0] + "\n")) == BOTH[:1]


# Long annotations


def test_a_long_annotation_gives_as_many_clips_as_fit(root: Path) -> None:
    catalogue = read(root, "a.txt", "3\t21\train\n1\t3\towl\n30\t37.4\train\n", cut="rows")
    cut, origin = cut_windows(catalogue, 5.0)
    assert clips(cut) == [
        ("a.wav", "rain", 3.0, 8.0),
        ("a.wav", "rain", 8.0, 13.0),
        ("a.wav", "rain", 13.0, 18.0),
        ("a.wav", "rain", 18.0, 21.0),
        ("a.wav", "owl", 1.0, 3.0),
        ("a.wav", "rain", 30.0, 35.0),
        ("a.wav", "rain", 32.4, 37.4),  # the end is no clip of its own, but it is not lost
    ]
    assert [clip.name for clip in cut.clips] == ["a@3.0", "a@8.0", "a@13.0", "a@18.0", "a@1.0", "a@30.0", "a@32.4"]
    assert {origin[clip].start_seconds for clip in cut.clips[:4]} == {3.0} and not cut.multi
    assert cut_windows(cut, 5.0)[0] is cut
