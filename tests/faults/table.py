"""The 108 faults that a run must live through, by number: what goes wrong.

A: the service, D: documents, M: the model's output, H: the host. The modules `test_table_*` hold a
table each of how every one is caused and how it must end.
"""

SERVICE = """
A01 connection refused
A02 the service's name is not found
A03 TLS fails
A04 connecting takes too long
A05 no answer in time, before the service acted
A06 the answer to an upload is lost
A07 the answer to a create is lost
A08 the answer to a cancel is lost
A09 500 before acting
A10 500 after acting
A11 502, 503 and 504 with a page of HTML
A12 429 with seconds to wait
A13 429 with none, with a date, with a day
A14 429 insufficient_quota
A15 400 unsupported parameter
A16 401 key revoked in mid-run
A17 403 no access to the model
A18 404 for a batch or a file, as if of another project
A19 409
A20 413
A21 200, cut off
A22 200 of an unexpected shape
A23 failed with a list of line errors
A24 failed with token_limit_exceeded
A25 completed with only an error file
A26 expired with paid output
A27 cancelled with partial output
A28 stuck past the window
A29 status or counts going backwards
A30 counts unequal to lines
A31 a listing that lags, repeats or drops
A32 a download that is cut, too short, changed or gone
A33 two batches for one input
A34 a batch of ours that the ledger does not know
A35 the key of another project on resume
A36 created_at before our intent
"""
DOCUMENTS = """
D01 no permission
D02 vanished after the catalogue
D03 changed after the catalogue
D04 empty
D05 blanks only
D06 invalid UTF-8
D07 UTF-16 with a byte order mark
D08 UTF-8 with a byte order mark
D09 Latin-1
D10 gzip named .txt
D11 .json.gz
D12 NUL bytes
D13 a line of 100 MB
D14 longer than the context window
D15 U+2028, U+2029 and U+0085
D16 a lone surrogate in JSON
D17 malformed JSON or no text member
D18 100,000 levels deep, or a number of 5,000 digits
D19 duplicates
D20 equal names in two folders; names that differ by case or by Unicode form
D21 names with a line break, "..", a leading dash, 255 bytes, bytes that are no text
D22 a link that loops
D23 a link out of the corpus
D24 pipe, socket and device
D25 an archive that leads out of its folder, a file that unpacks without end
D26 mixed formats, one of which would be missed
D27 gold labels without values
D28 CSV with CR line ends
"""
OUTPUT = """
M01 empty
M02 null with a refusal
M03 finish_reason length
M04 content filter
M05 invalid JSON
M06 fenced or in prose
M07 a list or a string
M08 a member is missing
M09 a member too many
M10 a value outside the declared ones, or by case or blanks
M11 a member stands twice
M12 NaN, Infinity, 1e999
M13 nested too deeply
M14 a number of 5,000 digits
M15 a custom_id that nobody sent
M16 no line at all
M17 the same line twice
M18 two lines that contradict each other
M19 another order
M20 the last line is cut
M21 a line of 100 MB
M22 not UTF-8, or NUL
M23 a lone surrogate
M24 HTML, commands to a terminal, a formula
M25 another model is named in the answer
M26 usage is missing or negative
M27 offsets that do not match their quote
M28 an instruction in the document is obeyed
"""
HOST = """
H01 disk full at each write
H02 read-only
H03 quota
H04 fsync fails
H05 no more file handles
H06 killed for memory
H07 INT, TERM, HUP, KILL to process and group
H08 asleep for 12 hours
H09 the clock is set
H10 two at once
H11 a network folder
H12 folder copied or put back while batches are open
H13 ledger deleted, cut or corrupt
H14 a schedule entry that is out of date
H15 code upgraded or downgraded in mid-run
H16 locale C, no HOME, no UTF-8 output
"""
FAULTS = dict(
    line.split(" ", 1)
    for group in (SERVICE, DOCUMENTS, OUTPUT, HOST)
    for line in group.strip().splitlines()
)
