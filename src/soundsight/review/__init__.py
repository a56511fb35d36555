"""What people do with a table of predictions: cut clips, check them one by one, learn from that, count calls by hour.

Works on tables and recordings; never loads a model to predict. The page for it is in `serve`.
"""
