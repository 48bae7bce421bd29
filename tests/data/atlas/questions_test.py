"""Questions from a hand-made world of six documents."""

from mem1_jax.data.atlas import build
from mem1_jax.data.atlas import documents
from mem1_jax.data.atlas import questions


def world():
  return [
      build.entity('country', 'Norway', 'train', {'capital': 'Oslo', 'currency': ['kroner', 'NOK']},
                   ['NOR']),
      build.entity('city', 'Oslo', 'train', {'country': 'Norway', 'population': '1.1 million'}),
      build.entity('airport', 'Gardermoen Airport', 'train', {'city': 'Oslo', 'code': 'OSL'}),
      build.entity('country', 'Bermuda', 'train', {'capital': 'Hamilton'}),
      build.entity('city', 'Hamilton', 'test', {'country': 'Canada', 'population': '570 thousand'}),
      build.entity('country', 'Monaco', 'test', {'capital': 'Monaco'}),
  ]


def by_path(split):
  return {question.id.split('/', 3)[3]: question
          for question in questions.make_questions(world(), split)}


def test_all_questions_of_a_split():
  assert set(by_path('train')) == {
      'capital/Norway', 'capital.population/Norway', 'currency/Norway', 'country/Oslo',
      'population/Oslo', 'country.currency/Oslo', 'city/Gardermoen Airport',
      'code/Gardermoen Airport', 'city.country/Gardermoen Airport',
      'city.population/Gardermoen Airport', 'city.country.currency/Gardermoen Airport',
      'capital/Bermuda',  # but no capital of the country of the city: Oslo again
  }


def test_a_question_of_three_look_ups():
  question = by_path('train')['city.country.currency/Gardermoen Airport']
  assert question.hops == 3
  assert question.chain == ('Gardermoen Airport', 'Oslo', 'Norway')
  assert question.found == ('Oslo', 'Norway', 'kroner')
  assert question.answers == ('kroner', 'NOK')
  assert 'the currency of the country of the city of Gardermoen Airport' in question.text


def test_an_entity_answers_to_its_aliases():
  assert by_path('train')['country/Oslo'].answers == ('Norway', 'NOR')


def test_a_capital_is_not_taken_for_a_city_of_its_name_elsewhere():
  assert 'capital.population/Bermuda' not in by_path('train')


def test_what_answers_itself_is_not_asked():
  assert 'capital/Monaco' not in by_path('test')


def test_documents_state_every_fact_after_a_space_and_do_not_repeat_their_title():
  facts = {'continent': 'Europe', 'capital': 'Oslo', 'currency': ['kroner', 'NOK']}
  entity = build.entity('country', 'Norway', 'train', facts)
  passage = documents.render(entity)
  assert passage.title == 'Norway' and 'Norway' not in passage.text
  assert all(f' {value[0]}' in passage.text for value in entity['facts'].values())
  assert 'NOK' not in passage.text
  assert documents.render(entity) == passage


def test_documents_vary_in_wording_and_order():
  texts = {documents.render(build.entity('airport', name, 'train', {
      'city': 'Oslo', 'code': 'OSL', 'elevation': '9 feet'})).text for name in 'abcdefghijklmnop'}
  assert len(texts) >= 8
  assert len({text.index('OSL') < text.index('9 feet') for text in texts}) == 2
