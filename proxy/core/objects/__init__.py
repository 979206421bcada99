"""The data plane of a UE: objects published in segments and fetched with congestion control, live streams frame by frame."""
