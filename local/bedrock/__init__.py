"""An offline Bedrock Runtime: Converse and ConverseStream on 127.0.0.1, with a choice of model behind them.

`endpoint` is the server, `request_rules` what it refuses, `model_backend` what a model has to provide, `select` the
MODEL option, and `rule_model`, `scripted_model`, `openai_model` and `real_bedrock` the models.
"""
