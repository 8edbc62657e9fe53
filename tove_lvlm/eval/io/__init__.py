"""Files: labels, answers, a run's folder, records, and where a benchmark's files are. Nothing here knows a task."""
