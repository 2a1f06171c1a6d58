"""What goes in and comes out: records and their formats, TREC and BEIR files, judgments, vectors."""
