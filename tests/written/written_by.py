"""Files as other programs write them: the programs that were at hand wrote theirs when this ran, in this folder.

python tests/written/written_by.py, with pandas, polars and pyarrow, needs R 4.2, LibreOffice 7.4, Gnumeric 1.12, PSPP 1.6 and
SQLite 3 on PATH. The files of MADE_BY_HAND are of programs that were not at hand; they follow what their manuals say they write.
"""

from __future__ import annotations

import csv
import datetime
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
N = 20
RNG = np.random.default_rng(0)
TOWNS = ["Bonn", "Köln", "Ulm", "Köln"] * (N // 4)
SIZES = [round(value, 2) for value in RNG.uniform(700, 2400, N).tolist()]
ROOMS = RNG.integers(1, 6, N).tolist()
LIFTS = [bool(value) for value in RNG.random(N) < 0.5]
SINCE = [datetime.date(2019, 6, 21) + datetime.timedelta(37 * k) for k in range(N)]
RENTS = [round(1.5 * size + 100 * rooms + 50 * lift, 2) for size, rooms, lift in zip(SIZES, ROOMS, LIFTS, strict=True)]
HOLE = 3  # the row without a size
SIZES[HOLE] = None
NAMES = ["town", "size", "rooms", "lift", "since", "rent"]
ROWS = list(zip(TOWNS, SIZES, ROOMS, LIFTS, SINCE, RENTS, strict=True))


def frame():
    """The table in pandas."""
    made = pd.DataFrame(ROWS, columns=NAMES)
    return made.assign(since=pd.to_datetime(made["since"]), size=made["size"].astype(float))


R = """
d <- read.csv("base.csv", encoding = "UTF-8")
d$lift <- d$lift == "True"
d$since <- as.Date(d$since)
write.csv(d, "r_write_csv.csv", fileEncoding = "UTF-8")
write.csv(d, "r_write_csv_without_names.csv", row.names = FALSE, fileEncoding = "UTF-8")
write.csv2(d, "r_write_csv2.csv", fileEncoding = "UTF-8")
write.csv2(d, "r_write_csv2_latin1.csv", row.names = FALSE, fileEncoding = "latin1")
write.table(d, "r_write_table.txt", fileEncoding = "UTF-8")
write.table(d, "r_write_table_tabs.tsv", sep = "\\t", quote = FALSE, row.names = FALSE, na = "", fileEncoding = "UTF-8")
d$since <- format(d$since, "%d.%m.%Y")
write.csv2(d, gzfile("r_german_dates.csv.gz"), row.names = FALSE, fileEncoding = "UTF-8")
"""
PSPP = """
GET FILE="base.sav".
SAVE TRANSLATE /OUTFILE="spss_save_translate.csv" /TYPE=CSV /FIELDNAMES /REPLACE.
SAVE TRANSLATE /OUTFILE="spss_semicolons.csv" /TYPE=CSV /FIELDNAMES /TEXTOPTIONS DELIMITER=";" DECIMAL=COMMA /REPLACE.
SAVE TRANSLATE /OUTFILE="spss_tabs.tsv" /TYPE=TAB /FIELDNAMES /REPLACE.
"""
SPSS = """
GET DATA /TYPE=TXT /FILE="base.csv" /DELIMITERS="," /FIRSTCASE=2
  /VARIABLES=town A8 size F8.2 rooms F2.0 lift A5 since SDATE10 rent F8.2.
SAVE OUTFILE="base.sav".
"""


def by_pandas():
    import polars as pl
    import pyarrow as pa
    import pyarrow.csv

    d = frame()
    d.to_csv("pandas_default.csv")
    d.to_csv("pandas_without_index.csv", index=False)
    d.to_csv("pandas_german.csv", index=False, sep=";", decimal=",", date_format="%d.%m.%Y")
    d.to_csv("pandas_utf16.csv", index=False, encoding="utf-16", na_rep="NULL")
    d.to_csv("pandas_excel.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig", lineterminator="\r\n")
    d.sample(frac=1, random_state=0).sort_index().to_csv("pandas_archive.zip", index=True, compression="zip")
    d.to_csv("pandas_quoted.csv.bz2", index=False, quoting=csv.QUOTE_ALL, na_rep="n.a.")
    d.sample(frac=1, random_state=1).to_parquet("pandas_shuffled.parquet")
    d.convert_dtypes().set_index("rooms", append=True).reset_index(level=1).to_parquet("pandas_nullable.parquet")
    d.assign(town=d["town"].astype("category")).to_parquet("pandas_categories.parquet", compression="zstd")
    p = pl.DataFrame(ROWS, schema=NAMES, orient="row")
    p.write_csv("polars_default.csv")
    p.write_csv("polars_semicolons.csv", separator=";", decimal_comma=True, null_value="-", include_bom=True)
    p.with_columns(pl.col("since").cast(pl.Datetime("ms", "UTC"))).write_csv("polars_times.csv", float_precision=2)
    p.write_parquet("polars.parquet")
    pa.csv.write_csv(p.to_arrow(), "pyarrow.csv")
    with open("python_csv.csv", "w", newline="", encoding="cp1252") as file:
        csv.writer(file, "excel-tab").writerows([NAMES, *ROWS])
    numbers = np.column_stack([np.array(SIZES, float), ROOMS, LIFTS, RENTS])
    np.savetxt("numpy_savetxt.txt", numbers, "%.18e", ",", header="size,rooms,lift,rent", comments="")


MADE_BY_HAND = {
    "excel_german.csv": (";", "\r\n", "cp1252", "{:,.2f} €", "german"),
    "excel_utf8.csv": (",", "\r\n", "utf-8-sig", None, "american"),
    "excel_unicode_text.txt": ("\t", "\r\n", "utf-16", None, "american"),
    "google_sheets.csv": (",", "\r\n", "utf-8", None, "iso"),
    "numbers_swiss.csv": (";", "\n", "utf-8", "swiss", "german"),
    "stata_export_delimited.csv": (",", "\r\n", "utf-8", None, "stata"),
    "stata_outsheet.txt": ("\t", "\r\n", "latin-1", None, "stata"),
    "sas_proc_export.csv": (",", "\r\n", "latin-1", "sas", "american"),
    "mysql_outfile.txt": ("\t", "\n", "utf-8", "mysql", "iso"),
    "postgresql_copy.csv": (",", "\n", "utf-8", "postgres", "iso"),
    "julia_csv.csv": (",", "\n", "utf-8", "julia", "iso"),
    "matlab_writetable.csv": (",", "\n", "utf-8", "matlab", "matlab"),
}


def by_hand(name, delimiter, end, encoding, style, dates):
    """One of the files of programs that were not at hand."""
    decimal = "," if dates == "german" and style != "swiss" else "."
    months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
    holes = {"sas": ".", "mysql": "\\N", "julia": "missing", "matlab": "NaN"}
    bools = {"german": ("FALSCH", "WAHR"), "american": ("FALSE", "TRUE"), "stata": ("0", "1"), "matlab": ("0", "1")}
    style_bools = {"sas": ("0", "1"), "mysql": ("0", "1"), "postgres": ("f", "t"), "julia": ("false", "true")}
    no, yes = style_bools.get(style) or bools.get(dates) or ("FALSE", "TRUE")

    def number(value):
        if value is None:
            return holes.get(style, "")
        if style == "swiss":
            return f"{value:,.2f}".replace(",", "’")
        if name == "excel_german.csv":
            return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))
        return repr(value).replace(".", decimal)

    def day(value):
        forms = {
            "german": f"{value:%d.%m.%Y}",
            "american": f"{value.month}/{value.day}/{value.year}",
            "iso": f"{value}",
        }
        forms |= {"stata": f"{value.day:02}{months[value.month - 1]}{value.year}"}
        forms |= {"matlab": f"{value.day:02}-{months[value.month - 1].title()}-{value.year}"}
        return f"{value:%m/%d/%Y}" if style == "sas" else forms[dates]

    rows = [[t, number(s), str(r), yes if lift else no, day(d), number(y)] for t, s, r, lift, d, y in ROWS]
    names = [] if style == "mysql" else [NAMES]
    text = "".join(delimiter.join(row) + end for row in [*names, *rows])
    Path(name).write_bytes(text.encode(encoding))


def run(*command, stdin=None):
    subprocess.run(command, check=True, cwd=HERE, input=stdin, text=True, stdout=subprocess.DEVNULL)


def main():
    frame().assign(since=[f"{day:%Y/%m/%d}" for day in SINCE]).to_csv("base.csv", index=False)
    by_pandas()
    run("Rscript", "-", stdin=R)
    run("pspp", "-", stdin=SPSS)
    run("pspp", "-", stdin=PSPP)
    run("pspp-convert", "base.sav", "spss_pspp_convert.csv")
    frame().to_csv("base.csv", index=False)
    # 59 is the semicolon, 34 the quotation mark, 76 UTF-8, 1 Windows' code page; de-DE is the language of the numbers.
    convert = ["soffice", "--headless", "--convert-to"]
    run(*convert, "ods", "--infilter=CSV:44,34,76,1,,1033,false,true", "base.csv")
    run(*convert, "csv:Text - txt - csv (StarCalc):59,34,1,1,,1031,false,true,false", "base.ods")
    Path("base.csv").rename("libreoffice_windows.csv")
    run(*convert, "csv:Text - txt - csv (StarCalc):44,34,76,1,,1033,false,false,false", "base.ods")
    Path("base.csv").rename("libreoffice.csv")
    run(
        "ssconvert",
        "--export-type=Gnumeric_stf:stf_assistant",
        "-O",
        "separator=| locale=C",
        "base.ods",
        "gnumeric.txt",
    )
    frame().to_csv("base.csv", index=False)
    run("sqlite3", "-header", "-csv", ":memory:", ".import --csv base.csv t", ".once sqlite.csv", "select * from t")
    for name, how in MADE_BY_HAND.items():
        by_hand(name, *how)
    for name in ("base.csv", "base.sav", "base.ods"):
        Path(name).unlink()


if __name__ == "__main__":
    import os

    os.chdir(HERE)
    sys.exit(main())
