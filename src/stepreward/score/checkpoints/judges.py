"""Public verifiers that write their judgement: their prompts, and the beginning and end of their answers, as data."""

from __future__ import annotations

from stepreward.score.checkpoints.row import JudgeCheckpoint

ROWS = (
    JudgeCheckpoint(
        ("launch/ThinkPRM-1.5B", "launch/ThinkPRM-7B", "launch/ThinkPRM-14B"),
        "repository ThinkPRM utils/helper.py, prm/thinkprm_api.py and dataset/prm_dataset.py; arXiv:2504.16828",
        prompt_format="You are given a math problem and a proposed step-by-step solution:\n\n[Math Problem]\n\n"
        "{prompt}\n\n[Solution]\n\n{steps}\n\nReview and critique each step in the proposed solution to determine "
        "whether each step is correct. If the solution is incomplete, only verify the provided steps.",
        opening="\nLet's verify step by step:",
        ends=("Is the solution correct?", "</think>", "Step {next}:"),
        labels=("correct", "incorrect"),
        clean=("unnumber", "strip"),
        step_format="Step {n}: {step}",
        max_tokens=8172,
        notes="A step's score is the share of the sampled answers that call it correct; its authors score a whole "
        "solution by the probability of 'yes' behind 'Is the solution correct?'. It stops at the first wrong step, so "
        "later ones have no score from that answer. Not checked on its own weights.",
    ),
    JudgeCheckpoint(
        ("GenPRM/GenPRM-7B", "GenPRM/GenPRM-1.5B"),
        "repository GenPRM README.md, src/prm_evaluation/genprm_inference.py and prm_evaluate.py; arXiv:2504.00891",
        prompt_format="Question: {prompt}\n\n{steps}",
        opening="<analyze>\nLet's analyze the Paragraph {n} step by step: ",
        ends=("</analyze>",),
        labels=("Yes", "No"),
        system="You are a math teacher. Your task is to review and critique the paragraphs in solution step by step.",
        prompting="dialogue",
        verdict="</analyze>\n<output>\n**Judgement**: $\\boxed",
        closing="}$\n</output>\n",
        temperature=0.6,
        top_p=0.95,
        notes="Its mode that analyses without running code (verify off): no code that a model wrote is run here. "
        "Sampling is not cut at the 20 likeliest tokens. A sample without a verdict counts as no score, there as 0.5. "
        "Its benchmark script puts the bare problem and one line break before the first step, its README what is "
        "here. Not checked on its own weights: its script adds no generation prompt of its own, a chat policy does.",
    ),
    JudgeCheckpoint(
        ("kevinpro/R-PRM-7B-DPO", "kevinpro/R-PRM-7B-SFT"),
        "repository R-PRM src/prompts, src/utils/inference.py and src/evaluate/GenPRM; arXiv:2503.21295",
        prompt_format="You are an excellent math teacher. Please verify the correctness of the Now Step.\n"
        "\n"
        "You first need to analyze the Now Step and the Previous Steps and then summarize based on "
        "your analysis.\n"
        "Analysis:\n"
        "You need to analyze the following aspects.\n"
        "**Previous Steps Analysis**: You need to analyze the Previous Steps step by step. For each "
        "step, you need to first explain what the current step is doing, then you try to find any "
        "error in the current step.\n"
        "**Now Step Analysis**: You first need to explain what the Now Step is doing, and then point "
        "out which part of the Question it is trying to solve or which part of the information it states.\n"
        "**Data Source Analysis**: First you need to find out what data are used in the Now Step, "
        "and then you need to determine whether the source of the data is reasonable and correct. "
        "When you judge whether the source of a data is reasonable and correct, you need to specify "
        "the specific source of this data: such as which part of the question, or which content of "
        "the previous step; and then determine the source and current use is consistent, the Now "
        "Step is used correctly.\n"
        "**Consistency Analysis**: You need to check that the Now Step is consistent with the "
        "contents of the Previous Steps, and then you need to check that all the information inside "
        "the Now Step is consistent.\n"
        "**Calculation Analysis**: If the Now Step involves any calculations, such as addition, "
        "subtraction, multiplication, division, equations, modulo operations, etc., you will first "
        "need to perform a check on the calculation, such as a reverse operation, to see if the "
        "calculation was done correctly, and then analyze the results of your check to see if there "
        "was an error in the calculation.\n"
        "Conclusion: \n"
        "Please verify the correctness of the Now Step based on your analysis, if there is any error "
        "in the Now Step then the Now Step is wrong and vice versa the Now Step is correct. At the "
        'end of the Conclusion, when you give your final answer, write it in the form "Verification: '
        'Is the step correct (Yes/No)? X", where X is either Yes or No.\n'
        "\n"
        "Question: {prompt}\n"
        "Previous Steps: {steps}\n"
        "Now Step: {step}\n"
        "Please carefully analyze the correctness of the Now Step.\n"
        "Reply:",
        opening="",
        ends=("Is the step correct (Yes/No)?",),
        labels=("Yes", "No"),
        prompting="apart",
        raw=True,
        first="Since the Now Step is the first step, there are no Previous Steps.",
        verdict="Is the step correct (Yes/No)?",
        before_label=" ",
        otherwise="\nBased on your analysis. Is the answer correct (Yes/No)?",
        temperature=0.4,
        top_p=0.95,
        max_tokens=8192,
        notes="The share of Yes beside No behind each answer is its score with a chooser, as published (ten answers a "
        "step); without one a sampled word. The temperature of its answers is not stated. Not checked on its own "
        "weights.",
    ),
    JudgeCheckpoint(
        ("GroundedPRM",),
        "repository GroundedPRMCode evaluation/ProcessBench_eval.py; arXiv:2510.14942",
        prompt_format="{prompt}\n\n{steps}",
        opening="",
        ends=(),
        labels=("+", "-"),
        system="Your task is to analyse and critique the reasoning step below of a math problem step-by-step.\n"
        "Please follow the instructions and format below to respond:\n"
        "\n"
        "1. Judge the logical and calculation correctness of the step by yourself.\n"
        '2. Provide the judgement conclusion and the label as "correct" or "incorrect" in '
        "'<output>\\boxed{}</output>'.\n"
        "3. Use the following format to respond:\n"
        "<judge>\n"
        "[details reasoning]\n"
        "</judge>\n"
        "<output>\n"
        "According to the conclusion of the judgement, the label is: \\boxed{}\n"
        "</output>\n"
        "\n"
        "Here is the step:\n",
        prompting="dialogue",
        marks=("[Right]", "[Wrong]"),
        shown_later="This step is: {label}",
        temperature=0.6,
        max_tokens=4096,
        notes="Its weights have no public name. Its script stops at the first wrong step, here later steps are judged "
        "too. An answer without a mark and without a box counts as no score, there as wrong.",
    ),
    JudgeCheckpoint(
        ("WebShepherd/web-shepherd-large", "WebShepherd/web-shepherd-base"),
        "repository Web-Shepherd src/webprm/prompts and src/webprm/models.py; arXiv:2505.15277",
        prompt_format="You are an expert evaluator of web agent. Your task is to assess how helpful a given "
        "agent's THOUGHT and ACTION is in making progress toward the user's goal, based on the "
        "current state of the webpage.\n"
        "\n"
        "# Task Description\n"
        "Evaluate how well the agent\u2019s THOUGHT and ACTION satisfy each item in the checklist using "
        "the task instruction, trajectory (including previously completed steps), current webpage "
        "state, and the agent\u2019s latest response. Start by writing a concise paragraph summarizing "
        "the agent\u2019s overall performance. Refer to the reasoning provided in the trajectory, and "
        "discuss whether the THOUGHT is appropriate and the ACTION moves the task forward.\n"
        "Then, assess each checklist item individually using the following labels:\n"
        "- Yes: The item is fully and clearly satisfied, either in the current response or "
        "previously completed.\n"
        "- In Progress: There is meaningful partial progress toward completing the item.\n"
        "- No: The item is not satisfied due to ambiguity, insufficient evidence, or lack of progress.\n"
        "\n"
        "# Given Information\n"
        "## User Instruction\n"
        "{prompt}\n"
        "## Trajectory\n"
        "{steps}\n## Current State\n"
        "### AXTREE\n"
        "Note: [bid] is the unique alpha-numeric identifier at the beginning of lines for each "
        "element in the AXTree. Always use bid to refer to elements in your actions.\n"
        "{state}\n"
        "## Checklist\n"
        "{checklist}\n"
        "## Agent's Response\n"
        "{step}\n"
        "\n",
        opening="",
        ends=("</answer>",),
        labels=("Yes", "No"),
        system="",
        prompting="apart",
        items=(("Yes", 1.0), ("In Progress", 0.5), ("No", 0.0)),
        temperature=1.0,
        notes="Of text alone. A step is the text of thought and action, the page that it sees the observation before "
        "it, and the problem's meta holds the `checklist`, which is written by another model first. Its authors weigh "
        "the probabilities of Yes and In of each item; here sampled words are counted, the more answers the closer. "
        "Theirs also have the page's address before its tree, and the last ten steps alone.",
    ),
)
