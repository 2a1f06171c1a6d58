"""Why does this document match this query?"""
