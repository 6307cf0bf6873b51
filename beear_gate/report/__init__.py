"""What a reviewer reads: every format is rendered from one `records.GateReport` and nothing else; see `render`."""
