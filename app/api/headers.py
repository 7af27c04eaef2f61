"""Headers that stop a browser from treating an answer as something else."""

# An answer is data for a program: a browser that shows it must not run or load anything.
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # nearly every answer is about a user or a catalogue
}
