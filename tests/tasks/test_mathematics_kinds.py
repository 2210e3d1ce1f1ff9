"""Answers of every kind in which people write them: what is equal, what is not, and that equal ones are one vote."""

from __future__ import annotations

import pytest

from stepreward.core.types import Problem, Step
from stepreward.tasks.mathematics import MathGrader

GRADER = MathGrader()
CASES = [
    # thousands
    ('12345', '12 345', 1), ('12345', r"12\,345", 1), ('12345', '12~345', 1), ('12345', '12\u202f345', 1),
    ('12345', r"12\;345", 1), ('12 345', '12345', 1), ('1234567', '1 234 567', 1), ('12345', '12{,}345', 1),
    ('12345', '12,345', 1), ('12345.6', '12 345.6', 1), ('12345', '12 346', 0), ('100,200,300', '100200300', 1),
    ('100,200,300', '100, 200, 300', 1), ('100, 200, 300', '100,200,300', 1), ('100, 200, 300', '300,200,100', 1),
    ('100, 200, 300', '100200300', 0), (r"111, \! 111, \! 111", '111111111', 1), (r"10,\!080", '10 080', 1),
    (r"10,\!080", '1080', 0), ('10080', r"10\,080", 1), ('2 1/2', '21/2', 0), ('2 345', '690', 0),
    ('1,234', '1, 234', 1), ('1000000', '10^6', 1), ('1,000,000', '1 million', 0),
    # decimals of constants
    (r"2\pi", '6.28318530717959', 1), (r"2\pi", '6.283185307179586', 1), (r"2\pi", '6.28', 0),
    (r"\sqrt{2}", '1.41421356237310', 1), (r"\sqrt{2}", '1.414', 0), (r"\frac{e}{2}", '1.359140914229523', 1),
    (r"\frac{\pi}{7}", '0.448798950512828', 1), (r"3\sqrt{13}", '10.816653826391969', 1),
    (r"3\sqrt{13}", r"\sqrt{117}", 1),
    # sums with letters
    ('3x+4y', '4y+3x', 1), ('3x+4y', '3x-4y', 0), ('3x+4y', '3x', 0), ('a^2+2ab+b^2', '(a+b)^2', 1),
    ('a^2+2ab+b^2', 'a^2+b^2', 0), ('7n-3', '7n+3', 0), (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}", 1),
    (r"\frac{n(n+1)}{2}", r"\frac{n(n-1)}{2}", 0), ('2^{n+1}-1', r"2\cdot2^n-1", 1), ('2^{n+1}-1', '2^n-1', 0),
    ('k(k-1)', 'k^2-k', 1), ('-x+1', '1-x', 1), ('x^2-5x+6', '(x-2)(x-3)', 1), ('x^2-5x+6', '(x-2)(x+3)', 0),
    (r"\frac{1}{x}+\frac{1}{y}", r"\frac{x+y}{xy}", 1), (r"\sqrt{x+1}", '(x+1)^{1/2}', 1),
    ('5p^5-25p', '5p(p^4-5)', 1), ('mn', 'nm', 1), ('abc', 'cab', 1), ('2ab', 'ab', 0), ('x_1+x_2', 'x_2+x_1', 1),
    ('x_1+x_2', 'x_1+x_1', 0),
    # complex
    ('3-4i', '-4i+3', 1), ('3-4i', '3+4i', 0), ('3-4i', '3', 0), ('3-4i', '-4i', 0), ('i', '1i', 1),
    (r"\frac{1+i}{2}", r"\frac12+\frac12 i", 1), ('(1+i)^2', '2i', 1), (r"e^{i\pi/2}", 'i', 1),
    (r"\frac{\sqrt3}{2}+\frac{1}{2}i", r"\frac{\sqrt{3}+i}{2}", 1),
    (r"5\text{ cis }30^\circ", r"5\text{ cis }60^\circ", 0), ('-1-i', '-1+i', 0), ('2i', '2', 0),
    ('1+2i', r"1+2\mathrm{i}", 1),
    # equations
    ('y=3x-7', '3x-y-7=0', 1), ('y=3x-7', 'y=3x+7', 0), ('y=3x-7', 'y+7=3x', 1), ('3x+4y-5=0', '3x+4y=5', 1),
    ('3x+4y-5=0', '0', 0), ('3x+4y-5=0', '3x+4y+5=0', 0), ('3x+4y-5=0', '6x+8y=10', 1),
    ('x^2+y^2=25', 'y^2+x^2=25', 1), ('x^2+y^2=25', 'x^2+y^2=5', 0), ('x^2+y^2=25', '25', 0),
    (r"\frac{x^2}{9}+\frac{y^2}{4}=1", '4x^2+9y^2=36', 1),
    (r"\frac{x^2}{9}+\frac{y^2}{4}=1", r"\frac{x^2}{4}+\frac{y^2}{9}=1", 0), ('x=4', 'x = 4.0', 1),
    ('x=4', 'x=5', 0), ('x=4', 'y=4', 1), ('x=4', '4=x', 1), ('n=12', '12', 1), ('a=1,b=2', 'b=2, a=1', 1),
    ('a=1,b=2', 'a=2,b=1', 0), ('a=1,b=2', '1,2', 0), ('x=1, x=2', 'x=2', 0), ('y^2=8x', 'y^2=-8x', 0),
    ('y=x', 'x=y', 1), ('y=x', 'x', 1), ('y=-x', 'y=x', 0), ('AB=CD', 'AB', 0), ('AB=CD', 'CD', 0),
    ('PV=nRT', 'nRT', 0),
    # inequalities
    ('x>3', r"(3,\infty)", 1), ('x>3', 'x<3', 0), ('x>3', '3', 0), ('x>3', r"x\geq3", 0), ('-1<x<2', '(-1,2)', 1),
    (r"-1<x\leq2", '(-1,2]', 1), (r"-1<x\leq2", '(-1,2)', 0), ('-1<x<2', '2>x>-1', 1), ('-1<x<2', 'x>-1', 0),
    ('-1<x<2', 'x<2', 0), (r"x<-2 \text{ or } x>5", r"(-\infty,-2)\cup(5,\infty)", 1),
    (r"x<-2 \text{ or } x>5", 'x>5', 0), ('a<b', 'b>a', 1), ('a<b', 'a>b', 0), ('a+b<c', 'c>a+b', 1),
    (r"k\ge -4", r"k \geqslant -4", 1), (r"k\ge -4", 'k=-4', 0), (r"0\le t\le 1", r"t\in[0,1]", 1),
    # tuples
    ('(1,-2,3)', '(1, -2, 3)', 1), ('(1,-2,3)', '(1,2,3)', 0), ('(1,-2,3)', '1,-2,3', 0),
    ('(1,-2,3)', '(1,-2)', 0), ('(1,-2,3)', '(3,-2,1)', 0), (r"\left(\frac12,3\right)", '(0.5,3)', 1),
    (r"(3,\frac{\pi}{2})", r"(3,\pi/2)", 1), (r"(3,\frac{\pi}{2})", '(3,90)', 0), ('(0,0)', '(0,0,0)', 0),
    (r"\langle 1,2\rangle", '(1,2)', 1), ('(2,5)', 'x=2,y=5', 1), ('(x,y)=(2,5)', '(2,5)', 1),
    ('(2,5)', '(x,y)=(2,5)', 1), ('(2,5)', '(x,y)=(5,2)', 0),
    # sets
    (r"\{1,2,3\}", r"\{3,2,1\}", 1), (r"\{1,2,3\}", r"\{1,2\}", 0), (r"\{1,2,3\}", '3', 0), (r"\{1\}", '1', 1),
    (r"\{1,2\}", r"\{1,2,2\}", 1), (r"\{x|x>2\}", 'x>2', 1), (r"\{x|x>2\}", r"\{x|x<2\}", 0),
    (r"\{x|-2\leq x < 1\}", '[-2,1)', 1), (r"\varnothing", r"\emptyset", 1), (r"\emptyset", '0', 0),
    (r"\{(1,2),(3,4)\}", r"\{(3,4),(1,2)\}", 1), (r"\{(1,2),(3,4)\}", r"\{(2,1),(4,3)\}", 0),
    # lists
    ('2, 3, 5', '5,3,2', 1), ('2, 3, 5', '2,3', 0), ('2, 3, 5', '2 and 3 and 5', 1), ('2,3,5', '2; 3; 5', 1),
    ('2,3,5', '235', 0), ('2, 3', '2, 3, 4', 0), ('1, 2', '12', 0), (r"\frac{1}{2},-1", r"-1,\frac12", 1),
    ('1331 and 1728', '1331', 0), ('A and B', 'B and A', 1), ('3, 3, 4', '3,4', 0),
    # matrices
    (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}", 1),
    (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"\begin{pmatrix}0&1\\1&0\end{pmatrix}", 0),
    (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", '1', 0),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}", 0),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}", 0),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\[2pt]2\end{bmatrix}", 1),
    (r"\begin{pmatrix}1/2\\2\end{pmatrix}", r"\begin{pmatrix}\frac{1}{2}\\2\end{pmatrix}", 1),
    (r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", 0),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\left(\begin{array}{c}1\\2\end{array}\right)", 1),
    (r"A=\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", 1),
    # intervals
    ('[0,5)', '(0,5)', 0), ('[0,5)', '[0,5]', 0), ('[0,5)', r"\left[0,5\right)", 1), ('[0,5)', '5', 0),
    (r"(-\infty,0]", r"x\le0", 1), (r"(-\infty,0]", r"(-\infty,0)", 0), (r"[1,2]\cup[3,4]", r"[3,4]\cup[1,2]", 1),
    (r"[1,2]\cup[3,4]", '[1,4]', 0), (r"[1,2]\cup[3,4]", '[1,2]', 0), (r"(-\infty,\infty)", r"\mathbb{R}", 1),
    (r"(-\infty,\infty)", r"(-\infty,0)", 0), (r"[-\sqrt{2},\sqrt2]", r"[-\sqrt2,\sqrt2]", 1),
    # pm
    (r"\pm 5", '5,-5', 1), (r"\pm 5", '-5', 0), (r"\pm 5", '5', 0), (r"\pm\frac{1}{2}", '0.5, -0.5', 1),
    (r"2\pm i", '2+i,2-i', 1), (r"2\pm i", '2+i', 0), (r"x=\pm\sqrt3", r"\sqrt3,-\sqrt3", 1),
    (r"\pm 5", r"\pm 6", 0), (r"\frac{-1\pm\sqrt5}{2}", r"\frac{-1+\sqrt5}{2},\frac{-1-\sqrt5}{2}", 1),
    ('±3', '3,-3', 1),
    # mixed
    (r"3\frac{1}{4}", '3.25', 1), (r"3\frac{1}{4}", r"\frac{13}{4}", 1), (r"3\frac{1}{4}", r"\frac34", 0),
    ('3 1/4', '13/4', 1), (r"-1\frac12", '-1.5', 1), (r"-1\frac12", '-0.5', 0), ('1½', '1.5', 1),
    (r"8\frac{3}{5}", '8 3/5', 1), (r"8\tfrac35", '8.6', 1), ('3-1/4', '11/4', 1),
    # frac forms
    (r"\frac 59", '5/9', 1), (r"\frac 59", '59', 0), (r"\frac 59", '9/5', 0), (r"\frac{5}9", r"\frac5{9}", 1),
    (r"\frac1{10}", '0.1', 1), (r"-\frac 59", r"\frac{-5}{9}", 1), (r"\frac{12}{34}", '6/17', 1),
    (r"\frac19", r"\frac{1}{9}", 1), (r"\cfrac{1}{2}", '0.5', 1), (r"{1 \over 2}", '0.5', 1),
    (r"\frac{1}{2}", r"1 \over 2", 1),
    # ratios, times, bases
    ('2:3', '4:6', 1), ('2:3', '3:2', 0), ('2:3', r"2 \text{ to } 3", 1), ('1:2:3', '2:4:6', 1),
    ('1:2:3', '1:2', 0), ('4:30', '4{:}30', 1), ('4:30 PM', r"4:30 \text{ p.m.}", 1), ('4:30 PM', '4:30 AM', 0),
    ('4:30', '4:03', 0), ('12:00', '12:00 noon', 1), ('1011_2', '1011_{2}', 1), ('1011_2', '1011_3', 0),
    ('1011_2', '11', 0), ('2A_{16}', '2A_16', 1), ('204_5', r"204_{\text{five}}", 1), ('204_5', '204', 0),
    ('204_5', '402_5', 0),
    # factorials etc
    ('7!', '5040', 1), ('7!', '7', 0), ('5040', '7!', 1), (r"\binom{7}{3}", '35', 1), (r"\binom{7}{3}", '7', 0),
    (r"\frac{10!}{3!}", '604800', 1), ('10! - 1', '3628799', 1), (r"\frac{1}{2004!}", r"\frac{1}{200!}", 0),
    ('C_7^3', '35', 0), ('2^{10}', '1000', 0), ('3^{50}', '3^{51}', 0), ('2^{2004}', '2^{2003}', 0),
    (r"\lfloor 2.5\rfloor", '2', 1),
    # units and options
    (r"15\text{ cm}", '15', 1), (r"15\text{ cm}", '15cm', 1), (r"15\text{ cm}", r"15\,\mathrm{cm}", 1),
    (r"15\text{ cm}", r"15\text{ mm}", 0), (r"15\text{ cm}", r"\text{cm}", 0),
    (r"15\text{ cm}", r"51\text{ cm}", 0), (r"15\text{ cm}^2", r"15\text{ cm}^3", 0),
    (r"15\text{ cm}^2", '15 sq cm', 1), (r"45\text{ units}^2", r"45\text{ square units}", 1),
    (r"45\text{ units}^2", r"45\text{ units}", 0), (r"45\text{ units}^2", '45', 1), ('15 dollars', r"\$15", 1),
    ('15 dollars', '15 cents', 0), (r"\$15", '15.00', 1), ('£5', '5', 1), ('€5', '5', 1),
    (r"60\text{ mph}", r"60\text{ miles per hour}", 1), (r"30\text{ minutes}", r"30\text{ min}", 1),
    (r"30\text{ minutes}", r"30\text{ hours}", 0), (r"9.8\text{ m/s}^2", '9.8', 1), ('3 apples', '3', 1),
    ('3', '3 apples', 1), ('3', '4 apples', 0), (r"\text{(D)}", 'D', 1), (r"\text{(D)}", '(D)', 1),
    (r"\text{(D)}", 'd', 1), (r"\text{(D)}", 'A', 0), ('D', r"\textbf{(D) }12", 1), ('D', r"\text{D}", 1),
    ('D', 'D) 12', 1), ('D', 'Option D', 1), ('A, C', 'C, A', 1), ('A, C', 'A', 0), ('A,C', 'AC', 0),
    ('B', '(B) and (C)', 0), ('B', 'A or B', 0),
    # json
    ('["3", "4"]', '4,3', 1), ('["3", "4"]', '3', 0), ('["x=1", "y=2"]', 'x=1,y=2', 1),
    (r'["\\sqrt{2}"]', r"\sqrt2", 1), ("['7']", '7', 1), ('[3, 4]', '3,4', 0),
    ('["(1,2)","(3,4)"]', '(3,4),(1,2)', 1),
    # percent
    (r"25\%", '25', 1), (r"25\%", '0.25', 1), (r"25\%", r"\frac14", 1), (r"25\%", '25 percent', 1),
    (r"25\%", '2.5', 0), (r"25\%", '75', 0), ('0.25', r"25\%", 1), ('0.25', '25', 0), ('25', r"0.25\%", 0),
    ('25%', r"25\%", 1), (r"12.5\%", '0.125', 1), (r"150\%", '1.5', 1), (r"150\%", '150', 1),
    # scientific
    (r"3.2\times10^5", '320000', 1), (r"3.2\times10^5", '3.2e5', 1), (r"3.2\times10^5", '3.2E5', 1),
    (r"3.2\times10^5", '3.2', 0), (r"3.2\times10^5", r"3.2\cdot 10^{5}", 1),
    (r"3.2\times10^5", r"3.2\times10^4", 0), (r"6.02\times 10^{23}", r"6.02\times 10^{-23}", 0),
    ('1e-10', '1e-11', 0), ('1e-10', '0', 0), (r"1.6\times10^{-19}", '1.6e-19', 1), ('0', '1e-300', 0),
    ('10^{-5}', '0.00001', 1), ('1.60e-19', r"1.6 \times 10^{-19} \mathrm{~C}", 1), ('10^{-60}', '10^{-61}', 0),
    ('10^{-60}', '0', 0),
    # hedging
    ('7', '7 or 8', 0), ('7', '6, 7, 8', 0), ('7', '7 (or 8)', 0), ('7', r"7 \text{ or } 8", 0),
    ('7', 'between 6 and 8', 0), ('7', r"\approx 7", 1), ('7', 'about 7', 1), ('7, 8', '7 or 8', 1),
    ('7', 'x = 7 or x = 9', 0), ('7', '7/8', 0), ('yes', 'yes or no', 0),
    # words
    (r"\text{Tuesday}", 'tuesday', 1), (r"\text{Tuesday}", 'Thursday', 0),
    ('no solution', r"\text{No solution.}", 1), ('infinitely many', 'infinite', 0), ('True', 'False', 0),
    (r"\text{north-east}", 'northeast', 0), ('isosceles triangle', 'triangle', 0),
    # trig/log
    (r"\frac{\sqrt{6}+\sqrt2}{4}", r"\cos 15^\circ", 1), (r"\log_{2}{3}", r"\frac{\ln3}{\ln2}", 1),
    (r"\log_2 3", r"\log_3 2", 0), (r"\ln 2", '2', 0), (r"\tan 45^\circ", '1', 1),
    (r"\sin^{-1}(1/2)", r"\pi/6", 1), (r"\arctan 2", r"\arctan 3", 0), (r"\cos x", r"\sin x", 0),
    (r"\sin 2x", r"2\sin x\cos x", 1), (r"60^\circ", r"\frac{\pi}{3}", 1), (r"60^\circ", r"30^\circ", 0),
    (r"\sqrt{50}", r"5\sqrt2", 1), (r"\sqrt{50}", '50', 0), (r"\sqrt[3]{16}", r"2\sqrt[3]{2}", 1),
    (r"\sqrt[3]{16}", r"\sqrt{16}", 0), (r"\frac{1}{\sqrt3}", r"\frac{\sqrt3}{3}", 1), (r"\sqrt5^2", '5', 1),
    ('4^{1/2}', '2', 1), ('sqrt(2)', r"\sqrt2", 1), ('sqrt2/2', r"\frac{\sqrt2}{2}", 1),
    ('pi/3', r"\frac{\pi}{3}", 1), ('2*pi', r"2\pi", 1), ('x**2+1', 'x^2+1', 1), ('f(x)=x^2', 'x^2', 1),
    ('f(x)=x^2', 'f(x)=x^3', 0), ('f(n)=1, g(n)=n', 'f(n)=n, g(n)=1', 0), ('f(n)=1, g(n)=n', 'g(n)=n, f(n)=1', 1),
]  # fmt: skip
"""Reference, what a box holds, whether the two are equal."""


def boxed(text: str) -> list[Step]:
    return [Step(rf"So \boxed{{{text}}}.")]


@pytest.mark.parametrize(("reference", "answer", "right"), CASES)
def test_answers_are_compared_whole_and_equal_ones_are_one_vote(reference: str, answer: str, right: int) -> None:
    problem = Problem("p", "q", reference)
    assert GRADER.grade(problem, boxed(answer)) == right
    same = GRADER.answer(problem, boxed(answer)) == GRADER.answer(problem, boxed(reference))
    assert same == bool(right)


def test_every_reference_equals_itself() -> None:
    for reference in dict.fromkeys(case[0] for case in CASES):
        assert GRADER.grade(Problem("p", "q", reference), boxed(f" {reference} ")) == 1, reference
