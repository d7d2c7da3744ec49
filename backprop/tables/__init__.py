"""Tables in: pandas, polars and pyarrow frames by column name, and Parquet files larger than memory."""

from backprop.tables.parquet import ParquetRows
from backprop.tables.table import Table

__all__ = ["ParquetRows", "Table"]
