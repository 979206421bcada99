"""Message faults: single packets dropped, delayed, duplicated, corrupted, replayed or forged, chosen by what they say."""
