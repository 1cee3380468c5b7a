"""The paper's figures and tables (Zhu et al., 2021), repeated at a chosen scale."""
